//! What this program is when it is not the benchmark: the agent whose first instruction is looked for, and the floors
//! that must be programs.

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

/// Nothing here takes this long; what does hangs.
const CEILING: Duration = Duration::from_secs(120);

/// The agent's part: says when it began and where, then does what it is told, and ends when nobody is there any more.
///
/// `began` is when its first instruction ran.
pub fn run(began: u64, mut arguments: impl Iterator<Item = OsString>) {
    let socket = arguments.next().expect("the socket to call at");
    let mut stream = UnixStream::connect(socket).expect("the benchmark listens");
    let directory = env::current_dir().expect("it has one");
    writeln!(stream, "{began} {}", directory.display()).expect("the benchmark hears");
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

/// A line of so many bytes every so often, each with the time at which it was printed.
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

/// A file that is written to at its end.
pub fn appended(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("a file")
}

/// Where agents call when they have begun.
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

    /// The next one that has begun.
    pub fn answer(&self) -> Agent {
        self.agents.recv_timeout(CEILING).expect("an agent calls")
    }

    /// Starts one without anything around it.
    pub fn start_bare(&self, directory: &Path) -> Child {
        self.start_into(directory, &self.path.with_extension("log"))
    }

    /// The same, with a file to print to.
    pub fn start_into(&self, directory: &Path, log: &Path) -> Child {
        let mut command = Command::new(program());
        command.arg("agent").arg(&self.path).current_dir(directory).stdin(Stdio::null());
        command.stdout(appended(log)).stderr(appended(log));
        command.spawn().expect("it starts")
    }
}

/// One that works.
pub struct Agent {
    /// When its first instruction ran.
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

    /// Ends it; when its last instruction ran.
    pub fn exit(mut self) -> u64 {
        self.tell("exit");
        self.stamp()
    }

    /// The next moment that it tells of.
    pub fn stamp(&mut self) -> u64 {
        read_line(&mut self.stream).parse().expect("a number")
    }

    /// Has it print a line of so many bytes every so often, until it ends.
    pub fn talk(&mut self, pause: Duration, bytes: usize) {
        self.tell(&format!("talk {} {bytes}", pause.as_micros()));
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.stream.get_mut(), "{what}").expect("it listens");
    }
}

fn read_line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("the agent answers");
    line.trim_end().to_owned()
}

/// This program.
pub fn program() -> PathBuf {
    env::current_exe().expect("this program has a path")
}
