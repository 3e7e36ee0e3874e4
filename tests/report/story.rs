//! Sample work for a report: seven workers of four agents, with a failed check and its retry, a race, a message, a
//! failure and merges. The agents are the fake CLI.

use std::path::PathBuf;

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::orchestrator::{IntegrationRequest, IntegrationSource, NewMessage, RetryRequest};

use crate::program;
use crate::support::sandbox::fake_cli;
use crate::support::wait::CEILING;
use crate::world::{Server, World, mission, until_exists};

pub struct Story {
    pub world: World,
    /// Workers in order of creation.
    pub workers: Vec<String>,
    server: Server,
}

/// A key of an agent, which may be only in the settings.
pub const PLANTED_KEY: &str = "sk-planted-4f9d27c1";

fn settings(world: &World) -> Settings {
    let fake = fake_cli();
    let agent = |name: &str| {
        format!(
            "[[custom]]\nname = {name:?}\nprogram = {fake:?}\noutput = \"jsonl\"\nreports_cost = true\n\
             resume_args = [\"--resume\", \"{{session_id}}\"]\nenv = {{ AGENT_KEY = {PLANTED_KEY:?} }}\n"
        )
    };
    let agents: String = ["codex-fast", "claude-deep", "gemini-wide", "local-coder"].map(agent).concat();
    toml::from_str(&format!("max_workers = 4\n{}{agents}", world.sharing())).expect("valid settings")
}

/// The real duration of a second of the story.
struct Pace(f64);

impl Pace {
    fn work(&self, seconds: f64) -> String {
        format!("sleep {:.2}", seconds * self.0)
    }
}

fn draft(title: &str, backend: &str, words: &str, script: &[String]) -> Draft {
    let script = script.join("\n");
    Draft { prompt: format!("{words}\n\nFAKE:\n{script}"), backend: backend.into(), ..mission(title, "") }
}

fn lines(script: &[&str]) -> Vec<String> {
    script.iter().map(|line| (*line).to_owned()).collect()
}

const CHECK: &str = "sh check.sh";

/// Creates a project whose check fails until the amounts are rounded.
fn project(world: &World, pace: &Pace) {
    let write = |path: &str, text: &str| {
        let path = world.repo().join(path);
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    write("src/money.py", "def cents(amount):\n    return int(float(amount) * 100)\n");
    write(
        "src/import_csv.py",
        "def read(path):\n    rows = []\n    for line in open(path):\n        rows.append(line.split(\",\"))\n    return rows\n",
    );
    write(
        "check.sh",
        &format!(
            "{}\ngrep -q 'int(float' src/money.py && {{ echo 'FAIL cents(\"1.15\"): expected 115, got 114'; exit 1; }}\necho ok\n",
            pace.work(1.2),
        ),
    );
    write("README", "# ledger\n\nBooks in plain text.\n");
    world.git(&["add", "-A"]);
    world.git(&["commit", "-q", "-m", "Books in plain text"]);
}

/// Runs the story. `seconds` is the real duration of a second of it: short in a test, longer for a picture.
pub async fn run(seconds: f64) -> Story {
    let pace = Pace(seconds);
    let world = World::named("ledger");
    project(&world, &pace);
    let server = world.server_with(Some("boss"), settings(&world));
    let mut workers = Vec::new();
    workers.extend(server.create(first_wave(&pace, &world)).await);
    workers.extend(server.create_race(race(&pace)).await);
    let workers: Vec<String> = workers.into_iter().map(|made| made.expect("an accepted mission")).collect();
    steer(&server, &world, &workers).await;
    server.wait(&[], CEILING).await;
    for worker in &workers {
        until_settled(&server, worker).await;
    }
    // The check of the second worker failed: its boss sends feedback, and its session continues.
    let retry = RetryRequest { feedback: Some(second_try(&pace)), ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &workers[1], retry).await.expect("a retry");
    server.until(&workers[1], "completed").await;
    let after = draft(
        "Change to the new date library",
        "gemini-wide",
        "Replace the old date functions by those of the new library, everywhere.",
        &[
            lines(&["say I look for the old functions first.", "run grep -rn strptime src || true"]),
            vec![pace.work(4.0)],
            lines(&[
                "say The new library has no time zones, and the importer needs them.",
                "usage 21400 1800 0.09",
                "result error The new library has no time zones, and the importer needs them.",
            ]),
        ]
        .concat(),
    );
    let last = server.create_one(after).await;
    until_settled(&server, &last).await;
    let winner = if is_completed(&server, &workers[4]).await { 4 } else { 5 };
    for worker in [0, 1, 2, winner] {
        let request = IntegrationRequest::of(IntegrationSource::Worker(workers[worker].clone()));
        let merged = server.orchestrator.integrate(&server.boss, request).await.expect("an answer");
        assert_eq!(merged.status.as_str(), "merged", "{}: {:?}", workers[worker], merged.left_out);
    }
    let workers = workers.into_iter().chain([last]).collect();
    Story { world, workers, server }
}

fn first_wave(pace: &Pace, world: &World) -> Vec<Draft> {
    let release = world.shared("released").display().to_string();
    let separators = draft(
        "Accept thousands separators",
        "codex-fast",
        "Amounts such as 1,250.00 and 1 250.00 are refused today. Accept both when reading.",
        &[lines(&["session s-1", "say I start with how amounts are read today.", "run cat src/import_csv.py"]), vec![pace.work(3.0)], lines(&[
            "edit src/import_csv.py",
            "write src/amounts.py def plain(text):\\n    \"\"\"1,250.00 and 1 250.00 are the same.\"\"\"\\n    return text.replace(\",\", \"\").replace(\" \", \"\")",
            "run python3 --version || true",
            "commit Accept thousands separators",
            "usage 38200 2900 0.14",
            "say Amounts with a comma or a space between thousands are read now. The new module src/amounts.py has the one function for it.",
        ])].concat(),
    );
    let cents = draft(
        "Round to cents, never down",
        "claude-deep",
        "cents(\"1.15\") gives 114. Make it right for all amounts.",
        &[
            lines(&[
                "session s-2",
                "say The float is the culprit: 1.15 * 100 is 114.99999999999999.",
                "run python3 -c \"print(1.15 * 100)\" || echo 114.99999999999999",
            ]),
            vec![pace.work(5.0)],
            lines(&[
                "append src/money.py # amounts are floats here",
                "edit src/money.py",
                "commit Say where the floats are",
                "usage 52100 4100 0.31",
                "say I marked the place. Rounding belongs there.",
            ]),
        ]
        .concat(),
    );
    let readme = draft(
        "Describe the file format",
        "local-coder",
        "Write the section \"Format\" of the README: columns, encoding, dates.",
        &[
            lines(&["session s-3", "say Reading the importer to describe what it takes."]),
            vec![format!("touch {release}.ready"), format!("wait-file {release}"), pace.work(2.0)],
            lines(&[
                "append README \\n## Format",
                "append README Three columns: date, account, amount.",
                "edit README",
                "commit Describe the file format",
                "usage 9800 1200 0",
                "say The README has a section about the format now, with an example.",
            ]),
        ]
        .concat(),
    );
    let checked = |draft: Draft| Draft { verify_command: Some(CHECK.to_owned()), ..draft };
    let separators = Draft { verify_command: Some("test -e src/amounts.py".into()), ..separators };
    let translate = draft(
        "Translate the error messages",
        "codex-fast",
        "All error messages in German and French.",
        &[
            lines(&["say This takes a while: there are many.", "run ls src"]),
            vec![pace.work(2.5)],
            lines(&["usage 7300 400 0.03", "hang"]),
        ]
        .concat(),
    );
    vec![separators, checked(cents), readme, translate]
}

/// Returns the boss's feedback after the failed check.
fn second_try(pace: &Pace) -> String {
    let script = [
        lines(&["session s-2", "say Right: a comment rounds nothing. Decimal does."]),
        vec![pace.work(4.0)],
        lines(&[
            "write src/money.py from decimal import Decimal, ROUND_HALF_UP\\n\\ndef cents(amount):\\n    return int((Decimal(amount) * 100).quantize(0, ROUND_HALF_UP))",
            "edit src/money.py",
            "run sh check.sh",
            "commit Round to cents with Decimal",
            "usage 71900 6300 0.48",
            "say cents() computes with Decimal and rounds half up. The check passes.",
        ]),
    ]
    .concat();
    format!("The check failed: cents(\"1.15\") is still 114. Use decimal arithmetic.\n\nFAKE:\n{}", script.join("\n"))
}

/// Returns two racers with one prompt. Their actions depend on their worktrees.
fn race(pace: &Pace) -> Vec<Draft> {
    let script = [
        lines(&["say Measuring first.", "run wc -l src/import_csv.py"]),
        vec![format!("run case \"$PWD\" in *streaming) sleep {:.2};; *) sleep {:.2};; esac", 3.5 * pace.0, 9.0 * pace.0)],
        lines(&[
            "write src/fast.py import csv\\n\\ndef rows(path):\\n    with open(path, newline=\"\") as file:\\n        yield from csv.reader(file)",
            "edit src/fast.py",
            "commit Read row by row",
            "usage 26400 3100 0.12",
            "say One pass, constant memory: a file of 1 GB takes 11 s instead of 70.",
        ]),
    ]
    .concat();
    let words = "The import of a large file takes a minute and all the memory. Make it fast.";
    ["Speed up the import, streaming", "Speed up the import, in batches"]
        .into_iter()
        .zip(["gemini-wide", "claude-deep"])
        .map(|(title, backend)| Draft { task_id: Some("speed".into()), ..draft(title, backend, words, &script) })
        .collect()
}

/// Sends a message to the worker that writes, and cancels the one that is no longer needed.
async fn steer(server: &Server, world: &World, workers: &[String]) {
    until_exists(&world.shared("released.ready")).await;
    let message = NewMessage {
        text: "Add an example of three lines, please.\n\nFAKE:\nappend README 2026-01-31, rent, 950.00\ncommit Show an example\n\
               say The README has a section about the format now, with an example."
            .into(),
        delivery: Delivery::WhenReady,
        by: None,
    };
    server.orchestrator.send_message(&server.boss, &workers[2], message).await.expect("a message");
    std::fs::write(world.shared("released"), "").expect("a file");
    server.until(&workers[0], "completed").await;
    server
        .orchestrator
        .cancel(&server.boss, &workers[3], "the messages stay in English")
        .await
        .expect("a cancelled worker");
}

async fn until_settled(server: &Server, worker: &str) {
    let settled = async || server.orchestrator.get(worker).await.expect("a known worker").worker.status.is_settled();
    assert!(crate::support::wait::in_time(async || settled().await).await, "{worker} never settled");
}

async fn is_completed(server: &Server, worker: &str) -> bool {
    server.orchestrator.get(worker).await.expect("a known worker").worker.status.as_str() == "completed"
}

impl Story {
    /// Writes the report. Returns its path and its text.
    pub fn report(&self, arguments: &[&str]) -> (PathBuf, String) {
        let path = self.world.path("report.html");
        let mut command = program(&self.world.path("home"), &self.world.repo());
        let output =
            command.args(["report", "--output"]).arg(&path).args(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{}", crate::stderr(&output));
        let html = std::fs::read_to_string(&path).expect("a written file");
        (path, html)
    }

    pub async fn end(self) -> World {
        self.server.orchestrator.shut_down().await;
        self.world
    }
}
