//! The script in a prompt and its commands. Paths are relative to the directory in which the fake CLI was started.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{self, Command, Output as Ended, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::acp::{AcpTurn, print_line};
use super::output::Output;
use super::unix;

/// Default time limit of `wait-file`. It is longer than any test waits for the steps before.
const WAIT_SECONDS: u64 = 300;
/// Interval of polling. It is long enough not to count as activity, even on a slow machine.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A shell script in which each process starts the next one and exits, so that a sweep must catch up with it.
const FORK_LOOP: &str = r#"[ "$1" -gt 0 ] || exit 0; sleep 0.02; sh -c "$0" "$0" $(($1 - 1)) &"#;

pub struct Script {
    lines: Vec<String>,
    /// The last line of a prompt without a script.
    heard: Option<String>,
}

/// The effect of one line on the script.
enum Next {
    Go,
    Exit(u8),
}

#[derive(Debug)]
pub enum Cannot {
    Unknown(String),
    Argument { line: String, wants: &'static str },
    Io { what: String, source: io::Error },
    Waited { path: String, seconds: u64 },
}

impl std::fmt::Display for Cannot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cannot::Unknown(line) => write!(f, "there is no command {line:?}"),
            Cannot::Argument { line, wants } => write!(f, "{line:?} is not a line like `{wants}`"),
            Cannot::Io { what, source } => write!(f, "could not {what}: {source}"),
            Cannot::Waited { path, seconds } => write!(f, "{path} was not there after {seconds} s"),
        }
    }
}

impl Script {
    pub fn of(prompt: &str) -> Self {
        let lines: Vec<&str> = prompt.lines().map(str::trim).collect();
        let Some(marker) = lines.iter().rposition(|line| line.starts_with("FAKE:")) else {
            let last = lines.iter().rev().find(|line| !line.is_empty()).copied().unwrap_or_default();
            return Self { lines: Vec::new(), heard: Some(last.to_owned()) };
        };
        let beside = lines[marker].trim_start_matches("FAKE:").trim();
        let below = lines[marker + 1..].iter().take_while(|line| !line.is_empty() && **line != "END");
        let lines = Some(beside).filter(|line| !line.is_empty()).into_iter().chain(below.copied());
        Self { lines: lines.map(str::to_owned).collect(), heard: None }
    }

    /// Returns whether the script names an exit, which ends an agent that would serve further prompts.
    pub fn exits(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with("exit "))
    }

    /// Runs the script and returns the exit code. A script without a result succeeds with status 0.
    pub fn run(&self, output: &mut Output) -> Result<u8, Cannot> {
        if let Some(last) = &self.heard {
            output.say(&format!("heard: {last}"));
        }
        let mut code = 0;
        let mut has_result = false;
        for line in &self.lines {
            let (verb, _) = halves(line);
            if matches!(verb, "result" | "fail" | "limited" | "stop" | "no-answer") {
                has_result = true;
                code = if line.starts_with("result success") { 0 } else { 1 };
            }
            if let Next::Exit(code) = run_line(line, output)? {
                return Ok(code);
            }
        }
        if !has_result {
            output.result(None);
        }
        Ok(code)
    }
}

fn run_line(line: &str, output: &mut Output) -> Result<Next, Cannot> {
    let (verb, rest) = halves(line);
    match verb {
        "say" => output.say(rest),
        "session" => output.session(rest),
        "edit" => output.edit(rest),
        "denied" => output.denied(rest),
        "garbage" => output.garbage(),
        "big-line" => output.big_line(number(line, rest, "big-line BYTES")?),
        "flood" => output.flood(number(line, rest, "flood LINES")?),
        "usage" => usage(line, rest, output)?,
        "result" => result(line, rest, output)?,
        "fail" => {
            let (kind, message) = halves(rest);
            output.result(Some((message, Some(kind))));
        }
        "limited" => limited(line, rest, output)?,
        "ask" | "ask-big" | "request" | "stop" => with_client(verb, rest, agent(line, output)?, output),
        "raw" => print_line(rest),
        "no-answer" => {}
        "burn-until" => burn_until(rest),
        "write" => write(rest)?,
        "append" => append(rest)?,
        "trace" => trace(rest)?,
        "fail-once" => return fail_once(rest, output),
        "touch" => put(rest, "")?,
        "pid" => put(rest, &process::id().to_string())?,
        "env" => write_variable(rest)?,
        "commit" => commit(rest, output)?,
        "run" => run(&["sh", "-c", rest], rest, output)?,
        "sleep" => thread::sleep(Duration::from_secs_f64(number(line, rest, "sleep SECONDS")?)),
        "wait-file" => wait_for_file(line, rest)?,
        "ignore-term" => unix::ignore(unix::SIGTERM),
        "ignore-int" => unix::ignore(unix::SIGINT),
        "daemon" => start_daemon(line, rest)?,
        "child" => start_child(line, rest, unix::in_own_session)?,
        "clear-env-child" => start_child(line, rest, Command::env_clear)?,
        "fork-loop" => start_fork_loop(line, rest)?,
        "stop-self" => unix::stop_self(),
        "die" => die(line, rest)?,
        "exit" => return Ok(Next::Exit(number(line, rest, "exit CODE")?)),
        "hang" => loop {
            thread::park();
        },
        _ => return Err(Cannot::Unknown(line.to_owned())),
    }
    Ok(Next::Go)
}

/// Returns the prompt that an agent of the Agent Client Protocol answers.
fn agent<'a>(line: &str, output: &'a Output) -> Result<&'a AcpTurn, Cannot> {
    output.turn().ok_or(Cannot::Argument { line: line.to_owned(), wants: "(a command of --acp only)" })
}

/// Runs a command that sends something to the client of the protocol, and says the answer.
///
/// `ask KIND WHAT` requests a permission, `ask-big BYTES` does so in a line of this length, `request METHOD` sends any
/// other request, and `stop REASON` answers the prompt.
fn with_client(verb: &str, rest: &str, turn: &AcpTurn, output: &Output) {
    let answer = match verb {
        "stop" => return turn.end(json!({"result": {"stopReason": rest}})),
        "request" => turn.request(rest, json!({})),
        _ => turn.request("session/request_permission", permission(verb, rest)),
    };
    let answer = answer.unwrap_or_default();
    let outcome = &answer["result"]["outcome"];
    let words = match (&answer["error"]["code"], &outcome["optionId"]) {
        (Value::Number(code), _) => code.to_string(),
        (_, Value::String(option)) => option.clone(),
        _ => outcome["outcome"].as_str().unwrap_or("no answer").to_owned(),
    };
    output.say(&format!("{verb}: {words}"));
}

fn permission(verb: &str, rest: &str) -> Value {
    let (kind, what) = if verb == "ask-big" { ("edit", "a big file") } else { halves(rest) };
    let content = "x".repeat(if verb == "ask-big" { rest.parse().unwrap_or_default() } else { 0 });
    json!({
        "toolCall": {
            "toolCallId": format!("ask-{what}"), "kind": kind, "title": what,
            "content": [{"type": "diff", "path": what, "newText": content}],
        },
        "options": [
            {"optionId": "always", "kind": "allow_always"},
            {"optionId": "once", "kind": "allow_once"},
            {"optionId": "no", "kind": "reject_once"},
        ],
    })
}

fn usage(line: &str, rest: &str, output: &mut Output) -> Result<(), Cannot> {
    const WANTS: &str = "usage INPUT OUTPUT COST";
    let (input, rest) = halves(rest);
    let (out, cost) = halves(rest);
    output.usage(number(line, input, WANTS)?, number(line, out, WANTS)?, number(line, cost, WANTS)?);
    Ok(())
}

fn result(line: &str, rest: &str, output: &mut Output) -> Result<(), Cannot> {
    match halves(rest) {
        ("success", "") => output.result(None),
        ("error", message) => output.result(Some((message, None))),
        _ => return Err(Cannot::Argument { line: line.to_owned(), wants: "result success` or `result error MESSAGE" }),
    }
    Ok(())
}

/// Runs `limited SECONDS MESSAGE`: prints a usage limit that resets after this time.
fn limited(line: &str, rest: &str, output: &mut Output) -> Result<(), Cannot> {
    let (seconds, message) = halves(rest);
    let seconds: u64 = number(line, seconds, "limited SECONDS MESSAGE")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    output.used_up(message, now + seconds);
    Ok(())
}

/// Uses the CPU without output until the file exists.
fn burn_until(path: &str) {
    while !Path::new(path).exists() {
        std::hint::black_box((0..100_000u64).sum::<u64>());
    }
}

/// Runs `write PATH CONTENT`; `\n` in the content is a newline, and a newline is appended.
fn write(rest: &str) -> Result<(), Cannot> {
    let (path, content) = halves(rest);
    put(path, &format!("{}\n", content.replace("\\n", "\n")))
}

fn append(rest: &str) -> Result<(), Cannot> {
    let (path, text) = halves(rest);
    make_parent(path)?;
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.and_then(|mut file| writeln!(file, "{text}")).map_err(|source| io_error("append to", path, source))
}

/// Runs `trace PATH WORD`: appends a line with the attempt's tag and the word, atomically among several writers.
fn trace(rest: &str) -> Result<(), Cannot> {
    let (path, word) = halves(rest);
    let tag = env::var("ORCHESTRATOR_WORKER_TAG").unwrap_or_default();
    let line = format!("{tag} {word}\n");
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.and_then(|mut file| file.write_all(line.as_bytes())).map_err(|source| io_error("append to", path, source))
}

/// Runs `fail-once PATH`: the first caller creates the file and fails; later callers continue.
fn fail_once(path: &str, output: &mut Output) -> Result<Next, Cannot> {
    match OpenOptions::new().create_new(true).write(true).open(path) {
        Ok(_) => {
            output.result(Some(("the first time it fails", None)));
            Ok(Next::Exit(1))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Next::Go),
        Err(source) => Err(io_error("make", path, source)),
    }
}

fn write_variable(rest: &str) -> Result<(), Cannot> {
    let (name, path) = halves(rest);
    match env::var_os(name) {
        Some(value) => put(path, &format!("set {}\n", value.to_string_lossy())),
        None => put(path, "unset\n"),
    }
}

/// Writes a file by renaming a temporary one, since tests read the file as soon as it exists.
fn put(path: &str, content: &str) -> Result<(), Cannot> {
    make_parent(path)?;
    let beside = format!("{path}.{}.tmp", process::id());
    fs::write(&beside, content)
        .and_then(|()| fs::rename(&beside, path))
        .map_err(|source| io_error("write", path, source))
}

fn make_parent(path: &str) -> Result<(), Cannot> {
    match Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::create_dir_all(parent).map_err(|source| io_error("make the folder of", path, source)),
        None => Ok(()),
    }
}

fn commit(message: &str, output: &mut Output) -> Result<(), Cannot> {
    run(&["git", "add", "-A"], "git add -A", output)?;
    run(&["git", "commit", "--quiet", "-m", message], &format!("git commit -m {message:?}"), output)
}

/// Runs a program as an agent's tool would. A failure is only reported.
fn run(command: &[&str], what: &str, output: &mut Output) -> Result<(), Cannot> {
    let id = output.tool(what);
    let ended = ended(command).map_err(|source| io_error("run", what, source))?;
    output.tool_end(&id, &ended);
    Ok(())
}

fn ended(command: &[&str]) -> io::Result<Ended> {
    Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).output()
}

/// Runs `wait-file PATH [SECONDS]`.
fn wait_for_file(line: &str, rest: &str) -> Result<(), Cannot> {
    let (path, seconds) = halves(rest);
    let seconds = if seconds.is_empty() { WAIT_SECONDS } else { number(line, seconds, "wait-file PATH [SECONDS]")? };
    let until = Instant::now() + Duration::from_secs(seconds);
    while !Path::new(path).exists() {
        if Instant::now() > until {
            return Err(Cannot::Waited { path: path.to_owned(), seconds });
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Runs `daemon SECONDS [PIDFILE]`: starts an orphan in its own session; the shell that starts it exits at once.
fn start_daemon(line: &str, rest: &str) -> Result<(), Cannot> {
    let (seconds, pid_file) = sleeper(line, rest)?;
    let mut shell = unix::quiet("sh", &["-c", "sleep \"$0\" & echo $!", &seconds.to_string()]);
    let ended = unix::in_own_session(shell.stdout(Stdio::piped())).spawn().and_then(|mut shell| {
        let mut pid = String::new();
        // Reads one line only: the sleeper keeps the pipe open, so its end never comes.
        if let Some(stdout) = shell.stdout.take() {
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut pid)?;
        }
        shell.wait()?;
        Ok(pid)
    });
    let pid = ended.map_err(|source| io_error("start", "a daemon", source))?;
    if pid_file.is_empty() { Ok(()) } else { put(pid_file, pid.trim()) }
}

/// Runs `child SECONDS [PIDFILE]` and its variants: starts a child that keeps running.
fn start_child(line: &str, rest: &str, change: impl FnOnce(&mut Command) -> &mut Command) -> Result<(), Cannot> {
    let (seconds, pid_file) = sleeper(line, rest)?;
    let mut command = unix::quiet("sleep", &[&seconds.to_string()]);
    change(&mut command);
    let child = command.spawn().map_err(|source| io_error("start", "a child", source))?;
    if pid_file.is_empty() { Ok(()) } else { put(pid_file, &child.id().to_string()) }
}

fn sleeper<'a>(line: &str, rest: &'a str) -> Result<(f64, &'a str), Cannot> {
    let (seconds, pid_file) = halves(rest);
    Ok((number(line, seconds, "daemon|child|clear-env-child SECONDS [PIDFILE]")?, pid_file))
}

fn start_fork_loop(line: &str, rest: &str) -> Result<(), Cannot> {
    let times: u32 = number(line, rest, "fork-loop N")?;
    let mut shell = unix::quiet("sh", &["-c", FORK_LOOP, FORK_LOOP, &times.to_string()]);
    shell.spawn().map(drop).map_err(|source| io_error("start", "the loop", source))
}

fn die(line: &str, rest: &str) -> Result<(), Cannot> {
    let signal = unix::number(rest).ok_or(Cannot::Argument { line: line.to_owned(), wants: "die SIGNAL" })?;
    unix::die_of(signal);
    Ok(())
}

/// Returns the first word and the rest.
fn halves(text: &str) -> (&str, &str) {
    match text.split_once(' ') {
        Some((first, rest)) => (first, rest.trim_start()),
        None => (text, ""),
    }
}

fn number<T: FromStr>(line: &str, text: &str, wants: &'static str) -> Result<T, Cannot> {
    text.parse().map_err(|_| Cannot::Argument { line: line.to_owned(), wants })
}

fn io_error(verb: &str, what: &str, source: io::Error) -> Cannot {
    Cannot::Io { what: format!("{verb} {what}"), source }
}
