//! Configuration files and manifests, by what the program prints.

use std::path::Path;
use std::process::Command;

use proxier_tests::command::program;
use proxier_tests::daemon::Scratch;

use super::input;

/// Runs the program: (exit status, standard output, standard error).
fn proxier(arguments: &[&str], files: &[(&str, &Path)]) -> (i32, String, String) {
    let mut command = Command::new(program("proxier").unwrap());
    command.args(arguments);
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// What the program makes of a configuration file, and what it says of it.
fn configuration(file: &Path) -> (String, Vec<String>) {
    let scratch = Scratch::create().unwrap();
    let written = scratch.path().join("written.yaml");
    let files = [("--config", file), ("--write-config-to", &*written)];
    let (status, _, said) = proxier(&["--hostname-override", "node-1"], &files);
    assert_eq!(status, 0, "{said}");
    (std::fs::read_to_string(written).unwrap(), said.lines().map(str::to_owned).collect())
}

/// A dry run over manifests on a node with these addresses.
fn dry_run(arguments: &[&str], manifests: &Path) -> (i32, String, String) {
    let mut all =
        vec!["--dry-run", "--proxy-mode=ipvs", "--ipvs-scheduler=rr", "--hostname-override=node-1"];
    all.extend(
        ["192.168.1.10", "203.0.113.1", "10.244.0.1"].iter().flat_map(|it| ["--node-address", it]),
    );
    all.extend(arguments);
    proxier(&all, &[("--manifests", manifests)])
}

#[test]
fn of_several_documents_the_first_is_the_configuration() {
    let (written, said) = configuration(&input("config-two-documents.yaml"));
    assert!(written.contains("scheduler: lc"), "{written}");
    let others: Vec<_> = said.iter().filter(|line| line.contains("documents")).collect();
    assert_eq!(others.len(), 1, "{said:#?}");
    assert!(others[0].contains("the first one is used"), "{said:#?}");
}

#[test]
fn numbers_are_read_however_they_are_written() {
    let (written, _) = configuration(&input("config-number-as-float.yaml"));
    assert!(written.contains("min: 1048576\n"), "{written}");
    let (written, said) = configuration(&input("siblings/config-forms.yaml"));
    for line in [
        "masqueradeBit: 15\n",
        "maxPerCore: 493\n",
        "min: 1000000\n",
        "strictARP: true\n",
        "burst: 16\n",
        "oomScoreAdj: -999\n",
        "syncPeriod: 1m30s\n",
    ] {
        assert!(written.contains(line), "{line:?} is not in {written}\n{said:#?}");
    }
}

#[test]
fn a_port_written_as_a_fraction_is_that_port() {
    let (status, table, said) = dry_run(&["--strict"], &input("port-as-float.yaml"));
    assert_eq!((status, said.as_str()), (0, ""), "{table}");
    assert!(table.contains("10.96.0.1:80/tcp") && table.contains("10.1.0.1:8080"), "{table}");
}

#[test]
fn primary_without_a_node_opens_nothing_and_says_what_to_give() {
    let primary = ["--nodeport-addresses=primary"];
    let (status, table, said) = dry_run(&primary, &input("node-port-primary.yaml"));
    assert_eq!(status, 0, "{said}");
    assert!(!table.contains(":30080"), "{table}");
    for text in ["nodePortAddresses is primary", "node-1", "--bind-address", "not opened"] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    assert!(!said.contains("Consider using"), "{said}");
    // Siblings: the address is given, or networks are.
    for given in [
        &["--nodeport-addresses=primary", "--bind-address=192.168.1.10"][..],
        &["--nodeport-addresses=192.168.1.0/24"],
    ] {
        let (_, table, said) = dry_run(given, &input("node-port-primary.yaml"));
        assert!(
            table.contains("192.168.1.10:30080") && said.is_empty(),
            "{given:?}: {table}{said}"
        );
        assert_eq!(table.matches(":30080").count(), 1, "{table}");
    }
}

#[test]
fn the_dated_service_keeps_what_both_claim() {
    for file in ["siblings/one-undated.yaml", "siblings/undated-null.yaml"] {
        let (_, table, said) = dry_run(&["-o", "json"], &input(file));
        let table: serde_json::Value = serde_json::from_str(&table).unwrap();
        let text = table.to_string();
        assert!(text.contains("10.1.0.9"), "{file}: {text} {said}");
        let output = Command::new(program("proxier").unwrap())
            .args(["explain", "203.0.113.9:80/tcp", "--hostname-override", "node-1", "--manifests"])
            .arg(input(file))
            .args(["--node-address", "192.168.1.10"])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("belongs to t/dated (external IP)"), "{file}: {said}");
    }
}

/// `--strict` is for those who check manifests before they use them.
#[test]
fn strict_fails_where_something_was_ignored() {
    let scratch = Scratch::create().unwrap();
    for (name, text, status) in [
        ("nothing", "kind: Deployment\napiVersion: apps/v1\n", 1),
        ("broken", "kind: [\n", 1),
        ("headless", "kind: Service\nmetadata: {name: a}\nspec: {clusterIP: None}\n", 1),
        (
            "one",
            "kind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n",
            0,
        ),
        (
            "half",
            "kind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80.5}, {port: 81}]}\n",
            1,
        ),
        (
            "misspelt-field",
            "kind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, externalIps: [192.0.2.1], \
             ports: [{port: 80}]}\n",
            1,
        ),
        (
            "misspelt-kind",
            "kind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n\
             ---\nkind: Endpointslice\nmetadata: {name: a-1}\n",
            1,
        ),
        (
            "no-service",
            "kind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n\
             ---\nkind: EndpointSlice\nmetadata: {name: a-1, labels: {kubernetes.io/service-name: wbe}}\n\
             addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1]}]\n",
            1,
        ),
    ] {
        scratch.replace(&format!("{name}/a.yaml"), text).unwrap();
        let folder = scratch.path().join(name);
        let (strict, _, said) = dry_run(&["--strict"], &folder);
        assert_eq!(strict, status, "{name}: {said}");
        for (of, words) in [
            (
                "misspelt-field",
                "unknown field \"spec.externalIps\" (did you mean \"externalIPs\"?)",
            ),
            (
                "misspelt-kind",
                "ignored: kind \"Endpointslice\" is not read; did you mean EndpointSlice?",
            ),
            ("no-service", "there is no Service default/wbe (did you mean default/web?)"),
        ] {
            assert!(of != name || said.contains(words), "{said}");
        }
        let (status, _, said) = dry_run(&[], &folder);
        assert_eq!(status, 0, "{name}");
        assert!(!said.contains("did you mean"), "{name}: {said}");
    }
}

/// Whatever is given in place of a file ends the start at once, in a few words.
#[test]
fn what_is_no_file_is_refused() {
    let scratch = Scratch::create().unwrap();
    let pipe = scratch.path().join("pipe");
    Command::new("mkfifo").arg(&pipe).status().unwrap();
    let zero = Path::new("/dev/zero");
    let large = scratch.replace("large", vec![b' '; (1 << 20) + 1]).unwrap();
    for (file, why) in [
        (zero, "it is a device, not a file"),
        (&pipe, "it is a pipe, not a file"),
        (scratch.path(), "it is a folder, not a file"),
        (&large, "it is larger than 1 MiB"),
    ] {
        for flag in ["--config", "--kubeconfig"] {
            let arguments = ["--dry-run", "--hostname-override=node-1", "--node-address=192.0.2.1"];
            let (status, _, said) = proxier(&arguments, &[(flag, file)]);
            assert_ne!(status, 0, "{flag} {}: {said}", file.display());
            assert!(said.contains(why), "{flag} {}: {said}", file.display());
        }
    }
    let (status, _, said) = dry_run(&[], zero);
    assert!(status != 0 && said.contains("it is a device"), "{said}");
}
