//! Other roles of this program: the agent whose first instruction is measured, and floors that must be programs.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::clock;

/// Time limit of every wait. An operation that takes longer hangs.
const CEILING: Duration = Duration::from_secs(120);

/// Runs the agent: it reports when and where it began, follows commands, and exits when the benchmark is gone.
///
/// `began` is the time of its first instruction.
pub fn run(began: u64, mut arguments: impl Iterator<Item = OsString>) {
    let socket = arguments.next().expect("the socket to call at");
    let mut stream = UnixStream::connect(socket).expect("the benchmark listens");
    let directory = env::current_dir().expect("a working directory");
    writeln!(stream, "{began} {}", directory.display()).expect("the benchmark reads");
    for line in BufReader::new(stream.try_clone().expect("one more")).lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        match words.next() {
            Some("exit") => break,
            Some("talk") => {
                let mut number = || words.next().and_then(|word| word.parse().ok()).expect("a number");
                let (pause, bytes) = (number(), number());
                std::thread::spawn(move || talk(Duration::from_micros(pause), bytes as usize));
            }
            _ => panic!("cannot {line}"),
        }
    }
    let _ = writeln!(stream, "{}", clock::now());
}

/// Prints lines of this many bytes at this interval, each with its time.
fn talk(pause: Duration, bytes: usize) {
    let mut out = std::io::stdout().lock();
    loop {
        let head = format!("{{\"type\":\"message\",\"text\":\"at {} ", clock::wall());
        let line = format!("{head}{}\"}}\n", "x".repeat(bytes.saturating_sub(head.len() + 3)));
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
        std::thread::sleep(pause);
    }
}

/// Opens a file for appending.
pub fn appended(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("a file")
}

/// A socket to which agents connect when they begin.
pub struct Bell {
    agents: Receiver<Agent>,
    path: PathBuf,
}

impl Bell {
    pub fn hang(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).expect("a socket");
        let (sender, agents) = channel();
        std::thread::spawn(move || listener.incoming().flatten().try_for_each(|it| sender.send(Agent::greet(it))));
        Self { agents, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next agent.
    pub fn answer(&self) -> Agent {
        self.agents.recv_timeout(CEILING).expect("an agent calls")
    }

    /// Starts an agent without a supervisor.
    pub fn start_bare(&self, directory: &Path) -> Child {
        self.start_into(directory, &self.path.with_extension("log"))
    }

    /// Starts an agent without a supervisor, with a file for its output.
    pub fn start_into(&self, directory: &Path, log: &Path) -> Child {
        let mut command = Command::new(program());
        command.arg("agent").arg(&self.path).current_dir(directory).stdin(Stdio::null());
        command.stdout(appended(log)).stderr(appended(log));
        command.spawn().expect("the program starts")
    }
}

/// A running agent.
pub struct Agent {
    /// The time of its first instruction.
    pub began: u64,
    pub directory: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Agent {
    fn greet(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(CEILING)).expect("a ceiling");
        let mut stream = BufReader::new(stream);
        let line = read_line(&mut stream);
        let (began, directory) = line.split_once(' ').expect("two words");
        Self { began: began.parse().expect("a number"), directory: directory.into(), stream }
    }

    /// Ends the agent. Returns the time of its last instruction.
    pub fn exit(mut self) -> u64 {
        self.send("exit");
        self.stamp()
    }

    /// Returns the next time that the agent reports.
    pub fn stamp(&mut self) -> u64 {
        read_line(&mut self.stream).parse().expect("a number")
    }

    /// Makes the agent print lines of this many bytes at this interval until its end.
    pub fn talk(&mut self, pause: Duration, bytes: usize) {
        self.send(&format!("talk {} {bytes}", pause.as_micros()));
    }

    fn send(&mut self, what: &str) {
        writeln!(self.stream.get_mut(), "{what}").expect("it listens");
    }
}

fn read_line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the agent answers");
    line.trim_end().to_owned()
}

/// Returns the path of this program.
pub fn program() -> PathBuf {
    env::current_exe().expect("this program has a path")
}
