use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::*;

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn launch(&self, script: &str) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            cwd: self.directory.path().to_owned(),
            env_set: BTreeMap::new(),
            env_remove: Vec::new(),
            stdin: StdinSource::Null,
            output_pipe: false,
            stdout: self.path("stdout"),
            stderr: self.path("stderr"),
            confine: None,
        }
    }

    /// Creates a program with this mode. Another process writes it: children of other threads could inherit a file that
    /// this process has open to write, and such a file cannot be started.
    fn program(&self, text: &str, mode: &str) -> PathBuf {
        let path = self.path("program");
        let mut writer = std::process::Command::new("sh");
        writer.args(["-c", "printf %s \"$1\" > \"$3\" && chmod \"$2\" \"$3\"", "sh", text, mode]).arg(&path);
        assert!(writer.status().unwrap().success());
        path
    }

    fn stdout(&self) -> String {
        std::fs::read_to_string(self.path("stdout")).unwrap()
    }
}

async fn run(launch: &Launch) -> Option<i32> {
    spawn(launch).unwrap().child.wait().await.unwrap().code()
}

#[tokio::test]
async fn output_is_appended_to_private_files() {
    let fixture = Fixture::new();
    let launch = fixture.launch("echo out; echo err >&2; exit 4");
    assert_eq!(run(&launch).await, Some(4));
    assert_eq!(run(&launch).await, Some(4));
    assert_eq!(fixture.stdout(), "out\nout\n");
    assert_eq!(std::fs::read_to_string(&launch.stderr).unwrap(), "err\nerr\n");
    assert_eq!(launch.stdout.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn environment_and_directory_are_set() {
    let fixture = Fixture::new();
    let mut launch = fixture.launch("echo \"$PWD|$ADDED|${CARGO_MANIFEST_DIR-gone}|$(pwd -P)\"");
    launch.env_set.insert("ADDED".into(), "a b".into());
    launch.env_set.insert("PWD".into(), "/wrong".into());
    launch.env_remove.push("CARGO_MANIFEST_DIR".into());
    assert_eq!(run(&launch).await, Some(0));
    let real = fixture.directory.path().canonicalize().unwrap();
    assert_eq!(fixture.stdout(), format!("{}|a b|gone|{}\n", launch.cwd.display(), real.display()));
}

#[tokio::test]
async fn cli_leads_its_own_process_group() {
    let fixture = Fixture::new();
    let mut started = spawn(&fixture.launch("exec sleep 30")).unwrap();
    let record = started.identity.record().unwrap();
    assert_eq!((record.pid, record.group), (started.child.id().unwrap(), record.pid));
    started.child.kill().await.unwrap();
}

#[tokio::test]
async fn input_comes_from_a_pipe() {
    let fixture = Fixture::new();
    let mut launch = fixture.launch("cat");
    launch.stdin = StdinSource::Pipe;
    let mut started = spawn(&launch).unwrap();
    let mut stdin = started.stdin.take().unwrap();
    stdin.write_all(b"from a pipe\n").await.unwrap();
    drop(stdin);
    assert!(started.child.wait().await.unwrap().success());
    assert_eq!(fixture.stdout(), "from a pipe\n");
}

#[tokio::test]
async fn start_failures_have_distinct_errors() {
    let fixture = Fixture::new();
    let mut launch = fixture.launch("");
    let mut error = |change: &dyn Fn(&mut Launch)| {
        launch = fixture.launch("");
        change(&mut launch);
        spawn(&launch).unwrap_err()
    };

    let missing = error(&|launch| launch.program = "no-such-cli".into());
    assert!(matches!(missing, SpawnError::ProgramNotFound { .. }), "{missing:?}");
    assert!(missing.to_string().contains("no-such-cli"));

    let directory = error(&|launch| launch.cwd = "/nowhere".into());
    assert!(matches!(directory, SpawnError::DirectoryMissing { .. }), "{directory:?}");

    let plain = error(&|launch| launch.program = fixture.program("text", "644"));
    assert!(matches!(plain, SpawnError::NotExecutable { .. }), "{plain:?}");

    let orphaned = error(&|launch| launch.program = fixture.program("#!/no/such/interpreter\n", "755"));
    assert!(matches!(orphaned, SpawnError::InterpreterNotFound { .. }), "{orphaned:?}");

    let binary = error(&|launch| launch.program = fixture.program("\u{1}\u{2}", "755"));
    assert!(matches!(binary, SpawnError::NotExecutable { .. }), "{binary:?}");

    let output = error(&|launch| launch.stdout = "/nowhere/stdout".into());
    assert!(matches!(output, SpawnError::Output { .. }), "{output:?}");
}

#[test]
fn limits_have_their_own_error() {
    let explained = |errno: Errno| explain(errno.into(), Path::new("cli"), Path::new("/"));
    assert!(matches!(explained(Errno::AGAIN), SpawnError::TooMany { .. }));
    assert!(matches!(explained(Errno::MFILE), SpawnError::TooMany { .. }));
    assert!(matches!(explained(Errno::TOOBIG), SpawnError::Start { .. }));
}

#[tokio::test]
async fn output_of_a_pipe_arrives_in_the_file() {
    let fixture = Fixture::new();
    let script = "test -p /dev/fd/1 && echo pipe; head -c 300000 /dev/zero | tr '\\0' x; exit 4";
    let mut process = spawn(&Launch { output_pipe: true, ..fixture.launch(script) }).unwrap();
    assert_eq!(process.child.wait().await.unwrap().code(), Some(4));
    process.output.as_mut().unwrap().finish(Duration::from_secs(60)).await.unwrap();
    assert_eq!(fixture.stdout(), format!("pipe\n{}", "x".repeat(300_000)));
}

#[tokio::test]
async fn daemon_that_holds_the_pipe_is_not_waited_for() {
    let fixture = Fixture::new();
    let script = "sleep 600 & echo $!";
    let mut process = spawn(&Launch { output_pipe: true, ..fixture.launch(script) }).unwrap();
    process.child.wait().await.unwrap();
    let began = std::time::Instant::now();
    while !fixture.stdout().ends_with('\n') {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was copied");
        tokio::task::yield_now().await;
    }
    process.output.as_mut().unwrap().finish(Duration::from_millis(1)).await.unwrap();
    let sleeper = fixture.stdout().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(sleeper).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_disk_ends_the_copy_with_its_reason() {
    let fixture = Fixture::new();
    let launch = Launch { output_pipe: true, stdout: "/dev/full".into(), ..fixture.launch("exec cat /dev/zero") };
    let mut process = spawn(&launch).unwrap();
    let why = process.output.as_mut().unwrap().finish(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(why.to_string(), "cannot write /dev/full: no space left on the device");
    // The program meets the closed pipe.
    assert!(!process.child.wait().await.unwrap().success());
}
