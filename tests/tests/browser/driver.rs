//! A headless Chromium, told what to do over the `WebDriver` protocol (chromedriver).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// One browser with one window. It ends with the value.
pub(crate) struct Browser {
    driver: Child,
    /// What it says must have a reader.
    _output: BufReader<ChildStdout>,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts it with an empty profile in this folder; `scheme` is `light` or `dark`.
    pub(crate) fn start(profile: &Path, scheme: &str, width: u32, height: u32) -> Result<Self> {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0", "--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start chromedriver (Debian packages chromium and chromium-driver)")?;
        let out = driver.stdout.take().context("its output")?;
        let mut output = BufReader::new(out);
        let (mut port, mut line) = (None, String::new());
        while port.is_none() && output.read_line(&mut line)? > 0 {
            let number =
                line.split_once("on port ").map(|(_, rest)| rest.trim().trim_end_matches('.'));
            if let Some(number) = number.filter(|_| line.contains("successfully")) {
                port = Some(number.parse()?);
            }
            line.clear();
        }
        let port = port.context("chromedriver says its port")?;
        let mut browser = Self { driver, _output: output, port, session: String::new() };
        let arguments = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--blink-settings=preferredColorScheme={}", u8::from(scheme != "dark")),
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", profile.display()),
        ];
        let mobile =
            json!({"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}});
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "mobileEmulation": mobile},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let answer = browser.ask("POST", "/session", &capabilities)?;
        answer["sessionId"].as_str().context("a session")?.clone_into(&mut browser.session);
        Ok(browser)
    }

    pub(crate) fn open(&self, url: &str) -> Result<()> {
        self.command("url", &json!({ "url": url })).map(drop)
    }

    /// What a script returns: the test's own, which a page's policy does not stop.
    pub(crate) fn script(&self, script: &str) -> Result<Value> {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// All text that can be seen.
    pub(crate) fn text(&self) -> Result<String> {
        Ok(self.script("return document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Presses keys where the focus is.
    pub(crate) fn keys(&self, keys: &[&str]) -> Result<()> {
        let press = |key: &&str| {
            [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]
        };
        let actions: Vec<Value> = keys.iter().flat_map(press).collect();
        let keyboard = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.command("actions", &keyboard).map(drop)
    }

    /// Pages that are opened from now on run no script of their own.
    pub(crate) fn without_scripts(&self) -> Result<()> {
        let body =
            json!({"cmd": "Emulation.setScriptExecutionDisabled", "params": {"value": true}});
        self.command("goog/cdp/execute", &body).map(drop)
    }

    /// Messages of the console: refused styles and scripts, failed requests.
    pub(crate) fn console(&self) -> Result<Vec<String>> {
        let log = self.command("se/log", &json!({"type": "browser"}))?;
        let lines = log.as_array().into_iter().flatten();
        Ok(lines.map(|line| line["message"].to_string()).collect())
    }

    /// A picture of what is in the window.
    pub(crate) fn picture(&self, path: &Path) -> Result<()> {
        let metrics = self.command(
            "goog/cdp/execute",
            &json!({
                "cmd": "Page.captureScreenshot",
                "params": {"format": "png"},
            }),
        )?;
        let data = metrics["data"].as_str().context("a picture")?;
        let bytes = decode(data)?;
        ensure!(bytes.starts_with(b"\x89PNG"), "the picture is no PNG");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
    }

    fn command(&self, name: &str, body: &Value) -> Result<Value> {
        self.ask("POST", &format!("/session/{}/{name}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.port)).context("reach chromedriver")?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        // The connection may stay open: the head says how much comes.
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while reader.read_line(&mut head)? > 2 {
            let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).with_context(|| head.clone())?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("{path}: {}", body["value"]["message"]);
        }
        Ok(body["value"].clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; then what drives it.
        if !self.session.is_empty() {
            let _ = self.ask("DELETE", &format!("/session/{}", self.session), &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Base64, as pictures come.
fn decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("not base64: {c}"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(bytes)
}
