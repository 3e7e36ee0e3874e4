//! A real browser without a window: what a page looks like, and what is in it once it is loaded.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A page takes a second or two; on a busy machine some more.
const CEILING: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Light,
    Dark,
}

/// `None` where there is none: said, and in continuous integration a failure.
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

    /// What the script finds, as JSON: it runs in a copy of the page whose policy lets it, when all is loaded. In a frame,
    /// since a window is never narrower than 500.
    pub fn ask(&self, html: &str, script: &str, width: u32, scheme: Scheme) -> Value {
        let policy = "default-src 'none'; style-src 'unsafe-inline'";
        assert!(html.contains(policy), "the page has its policy");
        let html = html.replacen(policy, &format!("{policy}; script-src 'unsafe-inline'"), 1);
        let probe = format!(
            "<script data-probe>addEventListener('load', () => {{ const found = (() => {{ {script} }})(); \
             const told = parent.document.createElement('pre'); told.id = 'findings'; \
             told.textContent = encodeURIComponent(JSON.stringify(found)); parent.document.body.append(told); }});</script></body>"
        );
        let page = self.framed(&html.replacen("</body>", &probe, 1), (width, 900));
        let dom = self.run(&["--dump-dom"], &page, (1400, 900), scheme);
        let findings = dom.split("<pre id=\"findings\">").nth(1).and_then(|rest| rest.split("</pre>").next());
        let findings = findings.unwrap_or_else(|| panic!("the script told nothing: {}", &dom[dom.len().min(600)..]));
        serde_json::from_str(&decoded(findings)).expect("it tells JSON")
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

    /// Loads a page as it is.
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
        while child.try_wait().expect("it is ours").is_none() {
            if began.elapsed() > CEILING {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the browser took longer than {CEILING:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(output.path()).expect("it prints text")
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
