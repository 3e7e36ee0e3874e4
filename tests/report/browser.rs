//! A headless browser, which renders a page and runs scripts in it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest wait for a page, which usually takes a second or two.
const CEILING: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

/// Finds a browser. Without one it prints that the test is skipped; in continuous integration it fails.
pub fn find() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let on_path = names.iter().find_map(|name| {
        let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
        folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    });
    let application = PathBuf::from("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome");
    let found = on_path.or_else(|| application.is_file().then_some(application));
    if found.is_none() {
        let why = "there is no Chromium: install chromium (apt-get install chromium) or Google Chrome";
        assert!(env::var_os("CI").is_none(), "{why}");
        eprintln!("SKIPPED: {why}");
    }
    found
}

pub struct Browser {
    program: PathBuf,
    profile: tempfile::TempDir,
}

impl Browser {
    pub fn find() -> Option<Self> {
        Some(Self { program: find()?, profile: tempfile::tempdir().expect("a temporary folder") })
    }

    /// Runs a script in a copy of the page whose policy allows it, after the page is loaded, and returns its result.
    /// The page is in a frame, since a window is never narrower than 500.
    pub fn ask(&self, html: &str, script: &str, width: u32, scheme: Scheme) -> Value {
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        assert!(html.contains(policy), "the page has its policy");
        let html = html.replacen(policy, &format!("{policy}; script-src 'unsafe-inline'"), 1);
        let probe = format!(
            "<script data-probe>addEventListener('load', () => {{ const found = (() => {{ {script} }})(); \
             const result = parent.document.createElement('pre'); result.id = 'findings'; \
             result.textContent = encodeURIComponent(JSON.stringify(found)); parent.document.body.append(result); }});</script></body>"
        );
        let page = self.framed(&html.replacen("</body>", &probe, 1), (width, 900));
        let dom = self.run(&["--dump-dom"], &page, (1400, 900), scheme);
        let findings = dom.split("<pre id=\"findings\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let findings =
            findings.unwrap_or_else(|| panic!("the script returned nothing: {}", &dom[dom.len().min(600)..]));
        serde_json::from_str(&decoded(findings)).expect("a JSON result")
    }

    fn framed(&self, html: &str, (width, height): (u32, u32)) -> PathBuf {
        let html = html.replace('&', "&amp;").replace('"', "&quot;");
        let frame = format!(
            "<!DOCTYPE html><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\">\
             <body style=\"margin: 0\"><iframe style=\"border: 0; display: block; width: {width}px; height: {height}px\" \
             srcdoc=\"{html}\"></iframe></body>"
        );
        let page = self.profile.path().join("framed.html");
        std::fs::write(&page, frame).expect("the copy is written");
        page
    }

    /// Loads a page unchanged.
    pub fn load(&self, page: &Path) -> String {
        self.run(&["--dump-dom"], page, (1280, 900), Scheme::Light)
    }

    pub fn picture(&self, html: &str, to: &Path, size: (u32, u32), scheme: Scheme) {
        let page = self.framed(html, size);
        self.run(&[&format!("--screenshot={}", to.display()), "--hide-scrollbars"], &page, size, scheme);
        assert!(to.is_file(), "there is a picture");
    }

    fn run(&self, what: &[&str], page: &Path, (width, height): (u32, u32), scheme: Scheme) -> String {
        let scheme = if scheme == Scheme::Dark { 0 } else { 1 };
        let output = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut child = Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg("--disable-dev-shm-usage")
            .arg(format!("--user-data-dir={}", self.profile.path().join("profile").display()))
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
            .args(what)
            .arg(format!("file://{}", page.display()))
            .env("HOME", self.profile.path())
            .stdin(Stdio::null())
            .stdout(output.reopen().expect("the file is there"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        let began = Instant::now();
        while child.try_wait().expect("a child process").is_none() {
            if began.elapsed() > CEILING {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the browser took longer than {CEILING:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(output.path()).expect("text output")
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut result = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| u8::from_str_radix(&text[at + 1..at + 3], 16).expect("two digits"));
        result.push(hex.unwrap_or(bytes[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    String::from_utf8(result).expect("it was text")
}
