//! Hosts of a cluster, and a peer on each.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::cluster::Cluster;
use crate::support::sandbox::PROGRAM;

/// Starts a cluster of one node and its login host, with their own mounts of a lagging file system. `None` if it cannot run
/// here.
pub fn start(file_system: &str) -> Option<Cluster> {
    Cluster::start(&[("NODES", "1"), ("SHAREDFS", file_system)])
}

/// Returns a command that runs this program on the login host.
pub fn on_login(cluster: &Cluster, program: impl AsRef<Path>) -> Command {
    on_host(cluster, &["login"], program.as_ref())
}

/// Returns a command that runs this program on the node.
pub fn on_node(cluster: &Cluster, program: impl AsRef<Path>) -> Command {
    on_host(cluster, &["node-exec", "1"], program.as_ref())
}

fn on_host(cluster: &Cluster, verb: &[&str], program: &Path) -> Command {
    let fixture = cluster.on_login().swap_remove(0);
    let mut command = Command::new(fixture);
    command.arg(cluster.folder()).args(verb).arg(program);
    command
}

/// A peer that runs on one host: see `peer.rs`.
pub struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn on_login(cluster: &Cluster) -> Self {
        Self::start(on_login(cluster, program()))
    }

    pub fn on_node(cluster: &Cluster) -> Self {
        Self::start(on_node(cluster, program()))
    }

    fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a peer");
        let (input, output) = (process.stdin.take().expect("its stdin"), process.stdout.take().expect("its stdout"));
        Self { process, input, output: BufReader::new(output) }
    }

    /// Calls a function for the attempt in this folder.
    #[track_caller]
    pub fn call(&mut self, function: &str, folder: &Path, argument: &str) -> String {
        writeln!(self.input, "{function} {} {argument}", folder.display()).expect("a peer that listens");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("an answer");
        assert!(answer.ends_with('\n'), "the peer ended at {function} {argument}");
        answer.trim_end().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a shell command in this folder, in which `$0` is the program.
pub fn in_folder(mut command: Command, folder: &Path, line: &str) -> Command {
    // The shell changes the folder itself: before the command has entered the host, the path names another folder.
    command.args(["-c", &format!("cd {} && {line}", folder.display()), PROGRAM]);
    command
}

fn program() -> PathBuf {
    Path::new(PROGRAM).with_file_name("examples/host-peer")
}
