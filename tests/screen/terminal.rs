//! A terminal of a given size in which the program runs: a window of tmux, of a server of its own that `Drop` ends.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::world::{World, until};

pub struct Terminal {
    socket: String,
    folder: std::path::PathBuf,
}

/// Whether the test must be skipped because tmux is missing. Says so; where `CI` is set it fails instead.
pub fn skipped() -> bool {
    if Command::new("tmux").arg("-V").output().is_ok() {
        return false;
    }
    let why = "tmux is not installed (apt-get install tmux, brew install tmux)";
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
    true
}

impl Terminal {
    /// Runs the program with these arguments; when it ends, its exit status is shown (`ended with 0`) and what is typed
    /// is echoed.
    pub fn start(world: &World, size: (u16, u16), args: &[&str], environment: &[(&str, &str)]) -> Self {
        let told = "\"$0\" \"$@\"; echo \"ended with $?\"; exec cat";
        let mut command: Vec<String> = ["/bin/sh", "-c", told, World::program()].map(str::to_owned).to_vec();
        command.extend(world.arguments(args));
        Self::open(world, size, &command, environment)
    }

    /// Runs any command in the repository.
    pub fn open(world: &World, (columns, rows): (u16, u16), command: &[String], environment: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let socket = format!("screen-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let terminal = Self { socket, folder: world.path("") };
        let mut tmux = terminal.tmux();
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns.to_string(), "-y", &rows.to_string()]);
        tmux.arg("-c").arg(world.repo());
        tmux.args(["env", "-i", "TERM=tmux-256color"]);
        tmux.args(world.environment().iter().map(|(name, value)| format!("{name}={value}")));
        tmux.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        let started = tmux.args(command).output().expect("tmux runs");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        // Programs may set the clipboard, as in most terminals.
        terminal.ask(&["set-option", "-s", "set-clipboard", "on"]);
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        // Its socket lies in the test's own folder.
        command.env_remove("TMUX").env("TMUX_TMPDIR", &self.folder).args(["-u", "-L", &self.socket]);
        command
    }

    fn ask(&self, args: &[&str]) -> Output {
        self.tmux().args(args).output().expect("tmux runs")
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.ask(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// The same with the escape sequences that colour it.
    pub fn coloured(&self) -> String {
        String::from_utf8_lossy(&self.ask(&["capture-pane", "-p", "-e"]).stdout).into_owned()
    }

    pub fn clipboard(&self) -> String {
        String::from_utf8_lossy(&self.ask(&["show-buffer"]).stdout).into_owned()
    }

    pub fn until(&self, says: &str) {
        self.until_screen(says, |screen| screen.contains(says));
    }

    pub fn until_gone(&self, says: &str) {
        self.until_screen(&format!("{says} is gone"), |screen| !screen.contains(says));
    }

    pub fn until_screen(&self, what: &str, is: impl Fn(&str) -> bool) {
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, || is(&self.screen()))));
        assert!(looked.is_ok(), "{what:?} never came on\n{}", self.screen());
    }

    /// Keys by their names, as tmux calls them.
    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    pub fn type_text(&self, text: &str) {
        self.ask(&["send-keys", "-l", text]);
    }

    /// As a terminal of people's pastes: it says so to programs that have asked for it.
    pub fn paste(&self, text: &str) {
        self.ask(&["set-buffer", text]);
        self.ask(&["paste-buffer", "-p"]);
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Something that tmux knows of the window, such as `alternate_on`.
    pub fn knows(&self, what: &str) -> String {
        let format = format!("#{{{what}}}");
        String::from_utf8_lossy(&self.ask(&["display-message", "-p", &format]).stdout).trim().to_owned()
    }

    /// The terminal is as it was before: the other screen is gone, the cursor is there, and what is typed is echoed.
    pub fn is_restored(&self) {
        assert_eq!((self.knows("alternate_on").as_str(), self.knows("cursor_flag").as_str()), ("0", "1"));
        self.type_text("typed afterwards");
        self.until("typed afterwards");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.ask(&["kill-server"]);
    }
}
