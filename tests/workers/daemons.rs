//! Daemons that a worker starts first and the user then uses keep running; the worker's own daemons end.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use orchestrator_boss::config::{Confine, Settings};
use orchestrator_boss::process::{Identity, Signal, TAG_VARIABLE, send};

use crate::own::{attempt, outcome, process, tag};
use crate::world::{Server, World, mission, until_exists};

/// Command lines of daemons that are shared. `HOME` stands for a folder of the user, `TREE` for the worktree.
const SHARED: [(&str, &str); 16] = [
    (
        "gradle",
        "/opt/jdk/bin/java -Xmx512m -cp /h/lib/gradle-daemon-main-8.10.jar org.gradle.launcher.daemon.bootstrap.GradleDaemon 8.10",
    ),
    (
        "kotlin",
        "/opt/jdk/bin/java -cp /h/kotlin.jar org.jetbrains.kotlin.daemon.KotlinCompileDaemon --daemon-runFilesPath /h",
    ),
    ("bazel", "bazel(app) -jar /h/install/ab/A-server.jar --max_idle_secs=10800"),
    ("nx", "/usr/bin/node TREE/node_modules/nx/src/daemon/server/start.js"),
    ("turbo", "TREE/node_modules/turbo-linux-64/bin/turbo --skip-infer daemon"),
    ("dotnet", "/usr/share/dotnet/dotnet exec /usr/share/dotnet/sdk/8.0.1/Roslyn/bincore/VBCSCompiler.dll -pipename:x"),
    ("dotnet", "/usr/share/dotnet/dotnet /usr/share/dotnet/sdk/8.0.1/MSBuild.dll /nologo /nodemode:1 /nodeReuse:true"),
    ("gpg-agent", "gpg-agent --homedir HOME/.gnupg --use-standard-socket --daemon"),
    ("ssh-agent", "ssh-agent -s"),
    ("ssh", "ssh: HOME/.ssh/cm-git@example.org:22 [mux]"),
    ("adb", "adb -L tcp:5037 fork-server server --reply-fd 4"),
    ("tmux", "tmux -S HOME/tmux new-session -d"),
    ("watchman", "/usr/bin/watchman --foreground --logfile=HOME/log"),
    ("sccache", "/usr/bin/sccache"),
    ("postgres", "/usr/lib/postgresql/15/bin/postgres -D HOME/data"),
    ("epmd", "/usr/lib/erlang/bin/epmd -daemon"),
];

/// Command lines of daemons that belong to the worker.
const OWN: [(&str, &str); 6] = [
    ("postgres", "/usr/lib/postgresql/15/bin/postgres -D TREE/data"),
    ("gpg-agent", "gpg-agent --homedir TREE/keys --use-standard-socket --daemon"),
    ("redis", "redis-server *:6379"),
    ("tmux", "tmux -S TREE/tmux new-session -d"),
    ("server", "node TREE/server.js"),
    ("client", "bazel build //..."),
];

/// Processes with this tag, or with this folder in their command line: redis hides its environment behind its title.
struct Tagged {
    tag: String,
    folder: String,
}

impl Tagged {
    fn living(&self) -> Vec<(Identity, String)> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let all = entries.filter_map(|entry| Identity::of(entry.file_name().to_str()?.parse().ok()?));
        let names_folder = |it: &Identity| {
            let line = std::fs::read(format!("/proc/{}/cmdline", it.pid)).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&self.folder)
        };
        let is_tagged = |it: &Identity| it.environment_has(TAG_VARIABLE, &self.tag) == Some(true);
        let ours = all.filter(|it| it.is_alive() && (is_tagged(it) || names_folder(it)));
        ours.filter_map(|it| Some((it, it.name()?))).collect()
    }
}

impl Drop for Tagged {
    fn drop(&mut self) {
        for (process, _) in self.living() {
            send(&process, Signal::Terminate);
        }
        for (process, _) in self.living() {
            send(&process, Signal::Kill);
        }
    }
}

async fn worker(world: &World, server: &Server, script: &str, end: &str) -> (String, Tagged) {
    std::fs::write(world.path("daemons.sh"), script).unwrap();
    let script = format!("run sh {}\ntouch ready\n{end}", world.path("daemons.sh").display());
    let id = server.create_one(mission("t", &script)).await;
    until_exists(&attempt(world).assignment()).await;
    (id, Tagged { tag: tag(&attempt(world)), folder: world.shared("home").display().to_string() })
}

async fn end_worker(world: &World, server: &Server, id: &str, end: &str) {
    if end == "hang" {
        until_exists(&world.worktree(id).join("ready")).await;
        server.orchestrator.cancel(&server.boss, id, "enough").await.unwrap();
    } else {
        server.until(id, "completed").await;
    }
}

/// Checks processes whose title is the command line of a daemon, as daemons set their titles. The worker is not confined:
/// daemons for builds end with a confined one.
async fn check_command_lines(end: &str) {
    let world = World::new();
    let server = world.server_with(Some("boss"), Settings { confine: Confine::Off, ..world.settings() });
    let home = world.shared("home");
    let pids = world.shared("pids");
    std::fs::create_dir_all(home.join("data")).unwrap();
    std::fs::create_dir(&pids).unwrap();
    let mut script = "exec >/dev/null 2>&1 </dev/null\n".to_owned();
    for (number, (_, line)) in SHARED.iter().chain(&OWN).enumerate() {
        let line = line.replace("HOME", &home.display().to_string());
        let pid = pids.join(number.to_string());
        // The pid is written only after the title is set.
        script.push_str(&format!(
            "line=$(echo '{line}' | sed \"s:TREE:$PWD:\")\nTITLE=\"$line\" setsid bash -c 'exec -a \"$TITLE\" sleep 300' &\n\
             until tr '\\0' ' ' < /proc/$!/cmdline | grep -qF \"$line\"; do sleep 0.01; done; echo $! > {}\n",
            pid.display()
        ));
    }
    // Otherwise the worker could end, and its processes with it, before the test has identified them.
    let identified = world.shared("identified");
    script.push_str(&format!("until [ -e {} ]; do sleep 0.01; done\n", identified.display()));
    let (id, _tagged) = worker(&world, &server, &script, end).await;
    let mut processes = Vec::new();
    for (number, it) in SHARED.iter().chain(&OWN).enumerate() {
        processes.push((number < SHARED.len(), it, process(&pids.join(number.to_string())).await));
    }
    std::fs::write(identified, "").unwrap();
    end_worker(&world, &server, &id, end).await;
    for (is_shared, (name, line), process) in &processes {
        assert_eq!(process.is_alive(), *is_shared, "{name} at its end by {end:?}: {line}");
    }
    let mut left = outcome(&world).cleanup.daemons_left;
    left.sort();
    let mut expected: Vec<&str> = SHARED.iter().map(|(name, _)| *name).collect();
    expected.sort();
    assert_eq!(left, expected, "the daemons left running are named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_recognised_by_command_line_survive_completion() {
    check_command_lines("say done").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_recognised_by_command_line_survive_cancellation() {
    check_command_lines("hang").await;
}

/// Each program, the command by which a worker starts it for the user, and the name of its process.
const PROGRAMS: [(&str, &str, &str); 8] = [
    ("gpg-agent", "gpg-agent --homedir HOME/keys --daemon", "gpg-agent"),
    ("ssh-agent", "ssh-agent -s", "ssh-agent"),
    (
        "tmux",
        "TMUX_TMPDIR=HOME tmux -f /dev/null new-session -d -c HOME 'sleep 302'; \
         TMUX_TMPDIR=HOME tmux new-session -d -c \"$PWD\" 'sleep 303'",
        "tmux: server",
    ),
    (
        "screen",
        "(cd HOME && SCREENDIR=HOME/screens screen -dmS shared sleep 304); \
         until SCREENDIR=HOME/screens screen -ls | grep -q shared; do sleep 0.05; done",
        "screen",
    ),
    ("redis-server", "redis-server --daemonize yes --dir HOME --port 0 --unixsocket HOME/r --save ''", "redis-server"),
    ("adb", "env HOME=@ adb -P 50371 start-server", "adb"),
    ("dbus-daemon", "dbus-daemon --session --fork --address=unix:path=HOME/bus --print-address", "dbus-daemon"),
    (
        "git",
        "printf 'protocol=https\\nhost=h\\nusername=u\\npassword=p\\n\\n' | git credential-cache --socket HOME/cache/s store",
        "git",
    ),
];

/// Some of these programs with their data in the worktree, or where the worker's environment puts it.
const OWN_PROGRAMS: [(&str, &str); 3] = [
    ("gpg-agent", "mkdir -m 700 keys; gpg-agent --homedir \"$PWD/keys\" --daemon"),
    ("tmux", "tmux -f /dev/null new-session -d 'sleep 305'"),
    ("redis-server", "redis-server --daemonize yes --port 0 --unixsocket \"$PWD/r\" --save ''"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_shared_daemons_survive_and_own_daemons_end() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let home = world.shared("home");
    for folder in ["keys", "screens", "cache"] {
        private_folder(&home.join(folder));
    }
    let is_here = |program: &str| Command::new("which").arg(program).output().is_ok_and(|it| it.status.success());
    let here: Vec<_> = PROGRAMS.into_iter().filter(|(program, ..)| is_here(program)).collect();
    for (program, ..) in PROGRAMS.iter().filter(|it| !here.contains(it)) {
        eprintln!("SKIPPED: {program} is not installed");
    }
    let shared = here.iter().map(|(_, line, _)| *line);
    let own = OWN_PROGRAMS.into_iter().filter(|(program, _)| is_here(program)).map(|(_, line)| line);
    let lines: Vec<&str> = own.chain(shared).collect();
    let wait = "until [ -e HOME/r ] || ! command -v redis-server; do sleep 0.05; done";
    let script = format!("exec >>HOME/log 2>&1 </dev/null\nset -x\n{}\n{wait}\n", lines.join("\n"));
    let script = script.replace("HOME=@", "H_O_M_E=@").replace("HOME", &home.display().to_string());
    let script = script.replace("H_O_M_E=@", &format!("HOME={}", home.display()));
    let (id, tagged) = worker(&world, &server, &script, "say done").await;
    server.until(&id, "completed").await;

    let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
    let living: Vec<String> = tagged.living().into_iter().map(|(_, name)| name).collect();
    for (program, _, name) in &here {
        let count = living.iter().filter(|living| living == name).count();
        assert_eq!(count, 1, "{program}: {living:?} survive\n{log}");
    }
    let sleeps: BTreeSet<String> = tagged.living().iter().filter_map(|(it, _)| sleeper(it)).collect();
    let expected: Vec<&str> = [("tmux", "302"), ("screen", "304")]
        .into_iter()
        .filter(|(program, _)| is_here(program))
        .map(|(_, seconds)| seconds)
        .collect();
    assert_eq!(
        sleeps.iter().map(String::as_str).collect::<Vec<_>>(),
        expected,
        "processes that work in the worktree end"
    );
}

fn private_folder(path: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
}

/// Returns the duration of a `sleep` process.
fn sleeper(process: &Identity) -> Option<String> {
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).ok()?;
    line.strip_prefix("sleep\0").map(|seconds| seconds.trim_end_matches('\0').to_owned())
}
