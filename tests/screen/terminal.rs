//! A terminal of a given size in which the program runs: a window of a separate tmux server, which `Drop` ends.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::world::{World, until};

pub struct Terminal {
    socket: String,
    folder: std::path::PathBuf,
}

/// Returns whether tmux is missing, and prints that the test is skipped. Fails if `CI` is set.
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
    /// Runs the program with these arguments. After its exit the terminal shows the exit status (`ended with 0`) and
    /// echoes input.
    pub fn start(world: &World, size: (u16, u16), args: &[&str], environment: &[(&str, &str)]) -> Self {
        let script = "\"$0\" \"$@\"; echo \"ended with $?\"; exec cat";
        let mut command: Vec<String> = ["/bin/sh", "-c", script, World::program()].map(str::to_owned).to_vec();
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
        // Its socket is in the test's own folder.
        command.env_remove("TMUX").env("TMUX_TMPDIR", &self.folder).args(["-u", "-L", &self.socket]);
        command
    }

    fn ask(&self, args: &[&str]) -> Output {
        self.tmux().args(args).output().expect("tmux runs")
    }

    /// Returns the text of the screen.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.ask(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// Returns the text of the screen with its colour sequences.
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
        assert!(looked.is_ok(), "{what:?} never appeared on\n{}", self.screen());
    }

    /// Presses keys, by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    pub fn type_text(&self, text: &str) {
        self.ask(&["send-keys", "-l", text]);
    }

    /// Pastes text as terminals do, with the marks of a bracketed paste for programs that request them.
    pub fn paste(&self, text: &str) {
        self.ask(&["set-buffer", text]);
        self.ask(&["paste-buffer", "-p"]);
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Returns a property of the window, such as `alternate_on`.
    pub fn knows(&self, what: &str) -> String {
        let format = format!("#{{{what}}}");
        String::from_utf8_lossy(&self.ask(&["display-message", "-p", &format]).stdout).trim().to_owned()
    }

    /// Checks that the terminal is restored: the main screen and the cursor are visible, and input is echoed.
    pub fn check_restored(&self) {
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
