//! A server on another host, as `setup CLIENT --host HOST --directory DIR` registers it: a real `sshd` on the loopback, a
//! host with a home of its own, and a client that runs the registered command. The client's `ssh` is the real one.
//!
//! Without `sshd` each test prints SKIPPED; with `CI=true` it fails. As root, `sshd` needs the folder /run/sshd.

#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use support::json_lines::Boss;
use support::processes::processes_in;
use support::sandbox::{PROGRAM, Sandbox, create, mission, status};
use support::wait::until;

/// Text that the host's shell prints at each login, where only the server may write.
const GREETING: &str = "Welcome to the host";

#[test]
fn workers_outlive_the_connection() {
    let Some(world) = World::start() else { return };
    let set_up = world.setup("~/my repo");
    assert!(set_up.status.success(), "{set_up:?}");
    let note = json_of(&set_up)["notes"].to_string();
    assert!(note.contains("every session works in ~/my repo on big"), "{note}");

    let mut boss = world.connect();
    let worker = create(&mut boss, mission("Be slow", "wait-file go 100\nwrite it.txt here\ncommit Add it\nsay done"));
    assert_eq!(worker, "w-1-be-slow");
    until("the worker runs", || status(&mut boss, &worker)["status"] == "running");
    boss.kill_server();
    until("the server ends with the connection", || world.servers() == 0);
    fs::write(world.host.worktree(&worker).join("go"), "").expect("the worktree is there");
    until("the worker ends without a server", || world.processes().is_empty());

    let mut boss = world.connect();
    let answer = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 30}));
    assert_eq!(answer["settled"][0]["worker_id"], "w-1-be-slow", "{answer:#}");
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
    let merged = boss.succeed("integrate_worker", json!({"worker_id": worker}));
    assert_eq!((&merged["status"], world.host.git(&["show", "HEAD:it.txt"]).as_str()), (&json!("merged"), "here"));
    boss.leave();

    let doctor = world.run(&["doctor"]);
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(found.contains("starts the server on another host, through ssh"), "{found}");
    assert!(world.run(&["setup", "claude", "--remove"]).status.success());
    assert!(!fs::read_to_string(world.settings()).unwrap_or_default().contains("ssh"));
}

#[test]
fn useless_registration_is_refused() {
    let Some(world) = World::start() else { return };
    let refused = |directory: &str, cause: &str| {
        let error = json_of(&world.setup(directory))["error"].to_string();
        assert!(error.contains("cannot start the server on big") && error.contains(cause), "{error}");
    };
    refused("~/nothing here", "nothing here");
    fs::write(world.host.path(".profile"), "PATH=/usr/bin:/bin\n").expect("a writable home");
    refused("~/my repo", "orchestrator-boss");
    fs::remove_file(world.host.path("authorized_keys")).expect("the key of the client");
    refused("~/my repo", "Permission denied");
    let with_settings = world.run(&["--config", "x.toml", "setup", "claude", "--host", "big", "--directory", "/x"]);
    let error = String::from_utf8_lossy(&with_settings.stderr).into_owned();
    assert!(error.contains("cannot use --config together with --host"), "{error}");
    assert!(!world.settings().exists());
}

/// A host with its `sshd`, and the home of a user on another machine who can log in there.
struct World {
    host: Sandbox,
    client: tempfile::TempDir,
    sshd: Child,
}

impl World {
    /// Starts the host. `None` if there is no `sshd` here.
    fn start() -> Option<Self> {
        let host = Sandbox::named("my repo");
        host.write_settings("", &["fake"]);
        let settings = host.path(".config/orchestrator-boss/config.toml");
        fs::create_dir_all(settings.parent().expect("a folder")).expect("a new folder");
        fs::copy(host.settings_file(), settings).expect("the settings");
        let folder = Path::new(PROGRAM).parent().expect("a folder").display();
        let profile = format!("echo {GREETING:?}\nPATH={folder}:/usr/bin:/bin\nexport PATH\n");
        for file in [".profile", ".zprofile"] {
            fs::write(host.path(file), &profile).expect("a file");
        }

        let client = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let key = client.path().join("key");
        new_key(&key)?;
        new_key(&host.path("host_key"))?;
        fs::copy(key.with_extension("pub"), host.path("authorized_keys")).expect("the key of the client");
        let sshd = start_sshd(&host, port)?;
        write_client(client.path(), &key, port);
        Some(Self { host, client, sshd })
    }

    fn settings(&self) -> PathBuf {
        self.client.path().join(".claude.json")
    }

    /// Runs the program on the machine of the client.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(PROGRAM).args(arguments).output().expect("the program runs")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.client.path().join("bin").display());
        command.env_clear().env("HOME", self.client.path()).env("PATH", path).current_dir(self.client.path());
        command.stdin(Stdio::null());
        command
    }

    fn setup(&self, directory: &str) -> Output {
        self.run(&["setup", "claude", "--json", "--host", "big", "--directory", directory])
    }

    /// Starts the server as the client does.
    fn connect(&self) -> Boss {
        let settings: Value =
            serde_json::from_str(&fs::read_to_string(self.settings()).expect("settings")).expect("JSON");
        let entry = &settings["mcpServers"]["orchestrator-boss"];
        let mut command = self.command(entry["command"].as_str().expect("a program"));
        command.args(entry["args"].as_array().expect("a list").iter().filter_map(Value::as_str));
        Boss::start_logging(command, Stdio::null())
    }

    /// Returns the servers and supervisors on the host.
    fn processes(&self) -> Vec<String> {
        let commands = processes_in(&self.host.root()).into_iter().map(|(_, command)| command);
        commands.filter(|command| command.contains("orchestrator-boss")).collect()
    }

    fn servers(&self) -> usize {
        self.processes().iter().filter(|command| !command.contains(" supervise ")).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

/// Starts `sshd` for the host. Each login has the host's home, and nothing of the user who runs the test.
fn start_sshd(host: &Sandbox, port: u16) -> Option<Child> {
    let Ok(program) = which::which_in("sshd", Some("/usr/sbin:/sbin:/usr/local/sbin"), "/") else {
        return skipped("there is no sshd");
    };
    let at = |name: &str| host.path(name).display().to_string();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n\
         SetEnv HOME={} GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1\n",
        at("host_key"),
        at("authorized_keys"),
        at("")
    );
    fs::write(host.path("sshd_config"), config).expect("a file");
    let log = fs::File::create(host.path("sshd.log")).expect("a file");
    let mut sshd = Command::new(program);
    sshd.args(["-D", "-e", "-f"]).arg(host.path("sshd_config")).env_clear().stdin(Stdio::null()).stderr(log);
    let mut sshd = sshd.current_dir("/").spawn().expect("an installed program");
    let mut ended = false;
    until("sshd listens, or ends", || {
        ended = sshd.try_wait().expect("a child of this process").is_some();
        ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    if ended {
        let log = fs::read_to_string(host.path("sshd.log")).unwrap_or_default();
        return skipped(&format!("sshd does not start: {}", log.trim()));
    }
    Some(sshd)
}

/// Writes the client's `ssh`. The real one reads the configuration of the account's home, not of `HOME`.
fn write_client(home: &Path, key: &Path, port: u16) {
    let config = format!(
        "Host big\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
         StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n",
        key.display()
    );
    fs::write(home.join("ssh_config"), config).expect("a file");
    fs::create_dir(home.join("bin")).expect("a new folder");
    let script = format!("#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n", home.join("ssh_config").display());
    // Another process writes it: a child of another thread could inherit the open file, and could then not start it.
    let mut writer = Command::new("sh");
    writer.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script]).arg(home.join("bin/ssh"));
    assert!(writer.status().expect("sh runs").success());
}

fn new_key(path: &Path) -> Option<()> {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    match made {
        Ok(status) => {
            assert!(status.success(), "{status}");
            Some(())
        }
        Err(error) => skipped(&format!("there is no ssh-keygen: {error}")),
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port()
}

fn skipped<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "with CI set, no test is skipped: {why}");
    eprintln!("SKIPPED: {why}");
    None
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}
