//! A Slurm cluster of a few nodes on this machine: `tests/slurm/fixture.sh`, with addresses and names that no other
//! cluster here has. It needs Linux, root, and the packages that `fixture.sh DIR install` installs.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slurm/fixture.sh");

/// A running cluster. It is stopped and its folder is removed when this value is dropped, or when this process ends in any
/// other way.
pub struct Cluster {
    folder: PathBuf,
    /// Stops the cluster when its stdin is closed.
    stopper: Child,
    /// Holds the number of this cluster.
    _number: TcpListener,
}

impl Cluster {
    /// Starts a cluster with these settings of the fixture, such as `("NODES", "1")`. `None` if it cannot run here, which
    /// fails if `CI` is set.
    pub fn start(settings: &[(&str, &str)]) -> Option<Self> {
        Self::is_possible(settings).then(|| Self::start_here(settings))
    }

    /// Returns whether a cluster with these settings can run here. If not, prints that the test is skipped, which fails if
    /// `CI` is set.
    pub fn is_possible(settings: &[(&str, &str)]) -> bool {
        let Some(why) = missing(settings) else { return true };
        assert!(std::env::var_os("CI").is_none(), "not skipped in CI: {why}");
        eprintln!("SKIPPED: {why}");
        false
    }

    fn start_here(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("slurm-").tempdir().expect("a temporary folder").keep();
        let folder = folder.canonicalize().expect("a temporary folder");
        let (number, lock) = free_number();
        let stop = format!("cat >/dev/null; {FIXTURE:?} \"$0\" stop >/dev/null 2>&1; rm -rf \"$0\"");
        let mut stopper = Command::new("bash");
        // A group of its own, so that it outlives an interrupted test.
        stopper.args(["-c", &stop]).arg(&folder).stdin(Stdio::piped()).process_group(0);
        let stopper = stopper.spawn().expect("bash runs");
        let cluster = Self { folder, stopper, _number: lock };
        let (net, name) = (format!("127.26.{number}"), format!("c{number}n"));
        let port = (27_000 + u32::from(number)).to_string();
        let own = [("NET", net.as_str()), ("NAME", name.as_str()), ("CTLPORT", port.as_str())];
        let started = cluster.command("start", &[]).envs(own).envs(settings.iter().copied()).output();
        let started = started.expect("the fixture runs");
        assert!(started.status.success(), "the cluster does not start: {started:?}");
        cluster
    }

    /// Runs a verb of the fixture, such as `ctl-kill`, which must succeed. Returns what it printed.
    #[track_caller]
    pub fn run(&self, verb: &str, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(verb, arguments).output().expect("the fixture runs");
        assert!(status.success(), "{verb} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    /// Returns the prefix that runs a command on the login host.
    pub fn on_login(&self) -> Vec<String> {
        vec![FIXTURE.to_owned(), self.folder.display().to_string(), "login".to_owned()]
    }

    /// Returns the folder that all hosts of the cluster see under this path.
    pub fn shared(&self) -> PathBuf {
        self.folder.join("shared")
    }

    /// Returns the folder of the fixture, with the state of the controller in `state`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the file that `SLURM_CONF` must name.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("slurm.conf")
    }

    /// Returns the pid of a part of the cluster, such as `slurmctld`.
    pub fn pid(&self, part: &str) -> i32 {
        let text = std::fs::read_to_string(self.folder.join("pid").join(part)).expect("the part runs");
        text.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid")
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(FIXTURE);
        command.arg(&self.folder).arg(verb).args(arguments).stdin(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.stopper.stdin.take());
        let _ = self.stopper.wait();
    }
}

/// Returns why no cluster with these settings can run here.
fn missing(settings: &[(&str, &str)]) -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("the Slurm cluster needs Linux".to_owned());
    }
    if !rustix::process::getuid().is_root() {
        return Some("the Slurm cluster needs root".to_owned());
    }
    let mergerfs = settings.contains(&("SHAREDFS", "lagging")).then_some("mergerfs");
    let needed = ["slurmctld", "slurmd", "sbatch", "munged"].into_iter().chain(mergerfs);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &OsStr| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let absent = needed.into_iter().find(|name| !is_there(OsStr::new(name)))?;
    Some(format!(
        "{absent} is not installed (SHAREDFS=lagging tests/slurm/fixture.sh DIR install, on Debian or Ubuntu)"
    ))
}

/// Returns a number that no other cluster on this machine has, and what holds it.
fn free_number() -> (u8, TcpListener) {
    // An address of no node, and a port of no daemon.
    let holding = |number: u8| TcpListener::bind((format!("127.26.{number}.254"), 26_900)).ok();
    let held = (1..=250).find_map(|number| Some((number, holding(number)?)));
    held.expect("a free number")
}
