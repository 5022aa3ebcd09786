//! What is written for people from the command line and the configuration: the manual pages and completions
//! (generated), `docs/configuration.md` (its tables).
//!
//! `UPDATE=1 cargo test -p proxier-tests --test docs` writes anew what is generated.

#![allow(clippy::unwrap_used, reason = "an unreadable document is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proxier::args::{Args, Shell, completion, shown as command_line};
use proxier::config::{Config, ConfigError, Environment};
use serde_json::Value;

const CONFIGURATION: &str = "docs/configuration.md";
const FLAGS: (&str, &str) = ("<!-- flags -->\n", "<!-- end of flags -->\n");

#[test]
fn the_manual_and_the_completions_are_of_this_command_line() {
    let mut wrong = Vec::new();
    for (path, wanted) in manual().into_iter().chain(completions()) {
        let place = root().join(&path);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, &wanted).unwrap();
        }
        if fs::read_to_string(place).is_ok_and(|present| present == wanted) {
            continue;
        }
        wrong.push(path);
    }
    assert!(wrong.is_empty(), "UPDATE=1 writes these anew: {wrong:?}");
}

#[test]
fn the_document_lists_every_flag() {
    let mut table = String::new();
    let command = command_line();
    let mut headings: Vec<_> = command.get_arguments().map(clap::Arg::get_help_heading).collect();
    headings.dedup();
    assert_eq!(headings.iter().collect::<BTreeSet<_>>().len(), headings.len());
    for heading in headings.into_iter().flatten() {
        let _ = write!(table, "\n### {heading}\n\n| flag | meaning |\n| --- | --- |\n");
        for flag in command.get_arguments().filter(|one| one.get_help_heading() == Some(heading)) {
            let short =
                flag.get_short().filter(|short| flag.get_long() != Some(&short.to_string()));
            let short = short.map(|short| format!("-{short}, ")).unwrap_or_default();
            let long = flag.get_long().unwrap();
            let value = flag.get_value_names().map(|names| names[0].to_string());
            let value = value.filter(|name| name != "BOOL" && name != "raw");
            let value = value.map(|name| format!("={name}")).unwrap_or_default();
            let help = flag.get_help().unwrap().to_string();
            let values: Vec<_> =
                flag.get_possible_values().iter().map(|one| one.get_name().to_owned()).collect();
            let values =
                if values.len() > 2 { format!(": {}", values.join(", ")) } else { String::new() };
            let default =
                flag.get_default_values().first().filter(|_| !flag.is_hide_default_value_set());
            let default = default.map(|one| format!(" (default {})", one.to_string_lossy()));
            let help =
                format!("{}{values}{}", help.trim_end_matches('.'), default.unwrap_or_default());
            let _ = writeln!(table, "| `{short}--{long}{value}` | {}. |", help.replace('|', "\\|"));
        }
    }
    let document = read(CONFIGURATION);
    let (before, rest) = document.split_once(FLAGS.0).unwrap();
    let (_, after) = rest.split_once(FLAGS.1).unwrap();
    let wanted = format!("{before}{}{table}\n{}{after}", FLAGS.0, FLAGS.1);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(CONFIGURATION), &wanted).unwrap();
    } else {
        assert!(wanted == document, "{CONFIGURATION} is out of date: UPDATE=1 writes it anew");
    }
}

/// Each field has a row with its default and, where it is not used, with the words of the warning.
#[test]
fn the_document_lists_every_field_and_says_which_are_not_used() {
    let defaults = fields(&load(serde_json::json!({})).unwrap());
    let rows = rows();
    let (written, known): (BTreeSet<_>, BTreeSet<_>) =
        (rows.keys().collect(), defaults.keys().collect());
    assert_eq!(written, known, "fields of {CONFIGURATION} and of the program");
    for (field, (default, meaning)) in &rows {
        assert_eq!(default, &shown(&defaults[field]), "default of {field}");
        let reason = no_effect(field, &defaults[field]);
        let said =
            meaning.strip_prefix("No effect: ").map(|text| text.trim_end_matches('.').to_owned());
        assert_eq!(said, reason, "whether {field} has an effect");
    }
}

/// The reason of the warning that a value other than the default gives, if one is given.
fn no_effect(field: &str, default: &Value) -> Option<String> {
    // A value of each kind that is not the default, and passes where the field is not looked at.
    let others = match default {
        Value::Bool(on) => vec![Value::from(!on)],
        Value::Number(number) => vec![Value::from(number.as_i64().unwrap_or(0) + 1)],
        Value::Null => vec![Value::from(true), Value::from(7), Value::from("7s")],
        Value::Array(_) => vec![serde_json::json!(["192.0.2.0/24"])],
        Value::Object(_) => vec![serde_json::json!({})],
        Value::String(_) => ["77s", "77", "1.35", "other"].map(Value::from).to_vec(),
    };
    let warning = format!("{field} has no effect: ");
    let mut reasons = others.into_iter().filter_map(|other| {
        let mut parts = field.rsplit('.');
        let inner = serde_json::json!({ parts.next().unwrap(): other });
        let nested = parts.fold(inner, |inside, name| serde_json::json!({ name: inside }));
        let config = load(nested).ok()?;
        config.warnings.iter().find_map(|text| text.strip_prefix(&warning).map(str::to_owned))
    });
    reasons.next()
}

/// `| field | default | meaning |`
fn rows() -> BTreeMap<String, (String, String)> {
    let mut rows = BTreeMap::new();
    for line in read(CONFIGURATION).lines() {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [field, default, meaning] = *cells.as_slice()
            && let Some(field) = field.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'))
        {
            let default = default.trim_matches('`').to_owned();
            let twice = rows.insert(field.to_owned(), (default, meaning.to_owned()));
            assert!(twice.is_none(), "two rows for {field}");
        }
    }
    rows
}

/// Every field that holds a value, by its path.
fn fields(config: &Config) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(inside) if !inside.is_empty() => {
                for (name, value) in inside {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, out);
                }
            }
            value => drop(out.insert(path.to_owned(), value.clone())),
        }
    }
    let mut out = BTreeMap::new();
    walk("", &serde_json::to_value(&config.object).unwrap(), &mut out);
    out.retain(|field, _| field != "apiVersion" && field != "kind");
    out
}

/// As the document writes a default.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Object(items) if items.is_empty() => String::new(),
        other => other.to_string(),
    }
}

fn load(mut body: Value) -> Result<Config, ConfigError> {
    body["apiVersion"] = "kubeproxy.config.k8s.io/v1alpha1".into();
    body["kind"] = "KubeProxyConfiguration".into();
    let words = ["proxier", "--config=/config", "--hostname-override=node-1"];
    Config::load(&Args::parse_from(words).unwrap(), &File(body.to_string()))
}

struct File(String);

impl Environment for File {
    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.clone())
    }

    fn host_name(&self) -> io::Result<String> {
        Ok("node-1".to_owned())
    }
}

/// One page: the flags of the proxy are the same for every command.
fn manual() -> Vec<(String, String)> {
    let mut command = command_line();
    command.build();
    let page = clap_mangen::Man::new(command.clone()).manual("proxier");
    let mut text = Vec::new();
    page.render_title(&mut text).unwrap();
    page.render_name_section(&mut text).unwrap();
    text.extend(b".SH SYNOPSIS\n.B proxier\n[\\fIFLAGS\\fR] [\\fICOMMAND\\fR]\n");
    page.render_description_section(&mut text).unwrap();
    text.extend(b".SH COMMANDS\n");
    command.get_subcommands().for_each(|one| text.extend(command_section(one).bytes()));
    page.render_options_section(&mut text).unwrap();
    text.extend(AFTER_OPTIONS.bytes());
    vec![("docs/man/proxier.1".to_owned(), String::from_utf8(text).unwrap())]
}

/// A command with its arguments, the flags of its own and its examples.
fn command_section(one: &clap::Command) -> String {
    let positional = one.get_positionals().map(|arg| arg.get_id().as_str().to_uppercase());
    let required =
        one.get_opts().filter(|arg| arg.is_required_set()).filter_map(clap::Arg::get_long);
    let flags = required.map(|name| format!("\\-\\-{name}"));
    let words: Vec<_> =
        [one.get_name().to_owned()].into_iter().chain(positional).chain(flags).collect();
    let about = one.get_about().unwrap().to_string();
    let mut out = format!(".TP\n.B {}\n{about}.\n", words.join(" "));
    for arg in one.get_positionals() {
        let _ = write!(out, ".br\n{}\n", arg.get_help().unwrap());
    }
    let own = |flag: &&clap::Arg| flag.get_help_heading().is_none() && !flag.is_required_set();
    for flag in one.get_opts().filter(own) {
        let short = flag.get_short().map(|short| format!("\\-{short}, ")).unwrap_or_default();
        let (long, help) = (flag.get_long().unwrap(), flag.get_help().unwrap());
        if long != "help" {
            let _ = write!(out, ".br\n{short}\\-\\-{long}: {help}.\n");
        }
    }
    if let Some(examples) = one.get_after_help() {
        let examples = examples.to_string().replace('\\', "\\e").replace('-', "\\-");
        let examples = examples.split_once('\n').unwrap().1;
        let _ = write!(out, ".IP\n.nf\n{examples}\n.fi\n");
    }
    out
}

const AFTER_OPTIONS: &str = "\
.SH EXAMPLES
.TP
What a node would hold, without touching it
.nf
proxier \\-\\-dry\\-run \\-\\-manifests deploy/examples \\-\\-hostname\\-override node\\-1
.fi
.TP
The node's service proxy, with kube\\-proxy's configuration
.nf
proxier \\-\\-config=/var/lib/kube\\-proxy/config.conf \\-\\-hostname\\-override=worker\\-1
.fi
.TP
What taking over this node from kube\\-proxy would change
.nf
proxier migrate \\-\\-check \\-\\-config=/var/lib/kube\\-proxy/config.conf \\-\\-hostname\\-override=worker\\-1
.fi
.TP
A load balancer without a cluster
.nf
proxier \\-\\-manifests /etc/proxier
.fi
.TP
Why a Service does not answer
.nf
proxier status; proxier explain svc/web \\-n shop
.fi
.SH FILES
.TP
.I /var/lib/kube\\-proxy/config.conf
The configuration in the manifests: a KubeProxyConfiguration, for \\fB\\-\\-config\\fR. A change is applied live.
.TP
.I /var/lib/kube\\-proxy/kubeconfig.conf
Where the API server is, as \\fIclientConnection.kubeconfig\\fR of that file says.
.TP
.I /etc/proxier
Services and endpoints of the unit proxier.service, which runs without a cluster. The folder is watched.
.TP
.I /run/xtables.lock
The lock that the iptables programs share.
.SH ENVIRONMENT
.TP
.B NO_COLOR
If it is set, nothing that is printed has colours.
.TP
.B PROXIER_IPTABLES_DIR
The folder in which the iptables programs are looked for, instead of where distributions put them.
.SH EXIT STATUS
0 success, 1 failure, 64 wrong usage, configuration or kubeconfig. Of \\fBstatus\\fR: 0 in sync, 2 in sync but something needs
attention, 1 anything else. Of \\fBdiff\\fR and \\fBmigrate\\fR: 0 nothing would
change, 1 something would, 2 it cannot be told.
.SH SIGNALS
SIGTERM and SIGINT end the program; the kernel goes on forwarding.
.SH SEE ALSO
.BR ipvsadm (8),
.BR ipset (8),
.BR iptables (8)
";

/// What `proxier completion` prints, for those who package it.
fn completions() -> Vec<(String, String)> {
    let shells =
        [(Shell::Bash, "proxier.bash"), (Shell::Zsh, "_proxier"), (Shell::Fish, "proxier.fish")];
    let of = |(shell, file)| (format!("docs/completions/{file}"), completion(shell));
    shells.into_iter().map(of).collect()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
