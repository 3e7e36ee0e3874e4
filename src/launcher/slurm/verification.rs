//! Verification runs of integrations on a node. On this host, `srun` takes the place of the supervisor: it forwards the
//! input and the output, and it and its job end with each other. When the server ends, even by a signal, the input of
//! `srun` ends too. A run that has begun then ends by itself, and an `srun` whose job still waits gets TERM.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::cancel::cancel_by_name;
use super::command::{Attached, Engine, shown};
use super::minutes::RESERVE;
use super::observe::state_of;
use super::quote;
use super::submit::{JobError, refusal, size_options};
use crate::attempt::status::READY;
use crate::attempt::verification_dir::VerificationDir;
use crate::config::LauncherSettings;
use crate::launcher::RunningVerification;
use crate::mission::life::EngineState;

/// A verification run to start.
#[derive(Debug)]
pub struct VerificationJob<'a> {
    /// The name of the job, which no other has.
    pub name: String,
    pub dir: &'a VerificationDir,
    /// This program's path on the nodes.
    pub program: &'a Path,
    /// The name of the launcher.
    pub launcher: &'a str,
    pub settings: &'a LauncherSettings,
    /// The time limit of its command and of its setup.
    pub limit: Duration,
}

/// Starts a verification run on a node. Returns when it has begun there, which can take as long as the cluster is busy.
/// If the future is dropped before, the job is cancelled. The script of the job must be in its folder, and `log` is open
/// for appending.
pub async fn start_verification(
    engine: &Engine,
    job: &VerificationJob<'_>,
    log: File,
) -> Result<RunningVerification, JobError> {
    let started = engine.attach("srun", &job.arguments(), log);
    let Attached { mut child, script } = started.map_err(|cause| JobError::of_no_answer(cause, job.launcher))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let dropped = CancellationToken::new();
    let exited = tokio::spawn(until_exit(child, dropped.clone(), engine.clone(), job.name.clone()));
    let guard = dropped.drop_guard();
    let mut stdin = stdin.expect("its input is a pipe");
    // If `srun` has ended already, the end of its output shows it.
    let _ = stdin.write_all(&script).await;
    let mut line = String::new();
    let mut output = BufReader::new(stdout.expect("its output is a pipe"));
    let _ = output.read_line(&mut line).await;
    if line.trim() == READY {
        guard.disarm();
        return Ok(RunningVerification { stdin: Some(stdin), exited });
    }
    drop(stdin);
    let _ = exited.await;
    guard.disarm();
    let text = shown(&fs::read(job.dir.supervisor_log()).unwrap_or_default(), line.as_bytes());
    let text = if text.is_empty() { "srun ended without an error".to_owned() } else { text };
    Err(refusal(text, job.launcher).into())
}

/// Ends the job of a verification run whose server has died. Returns whether it is over.
pub async fn end_verification(engine: &Engine, name: &str) -> Result<bool, String> {
    cancel_by_name(engine, name).await?;
    let state = state_of(engine, name).await?.map(|(state, _)| state);
    Ok(!matches!(state, Some(EngineState::Waits { .. } | EngineState::Runs)))
}

/// Waits for the end of `srun`. If the future that started it is dropped, and with it the input, cancels the job.
async fn until_exit(
    mut srun: Child,
    dropped: CancellationToken,
    engine: Engine,
    name: String,
) -> io::Result<ExitStatus> {
    tokio::select! {
        status = srun.wait() => return status,
        () = dropped.cancelled() => {}
    }
    if let Err(error) = cancel_by_name(&engine, &name).await {
        tracing::warn!(error, name, "cannot cancel the job of a verification");
    }
    srun.wait().await
}

impl VerificationJob<'_> {
    fn arguments(&self) -> Vec<OsString> {
        let minutes = self.limit.as_secs().div_ceil(60).saturating_add(RESERVE);
        let mut folder = OsString::from("--chdir=");
        folder.push(self.dir.root());
        let fixed = [
            format!("--job-name={}", self.name),
            "--nodes=1".to_owned(),
            "--ntasks=1".to_owned(),
            "--export=ALL".to_owned(),
            format!("--time={minutes}"),
        ];
        let fixed = fixed.map(OsString::from).into_iter().chain([folder]).chain(size_options(self.settings));
        fixed.chain(["bash".into(), self.dir.job_script().into()]).collect()
    }

    /// Returns the script of the job. The prologue gets no input, and its output goes to the log, since both belong to the
    /// supervisor.
    pub fn script(&self) -> Vec<u8> {
        let mut script = b"exec 3<&0 4>&1 </dev/null >&2\n".to_vec();
        for line in self.settings.prologue.iter().flat_map(|lines| lines.lines()) {
            script.extend(line.as_bytes());
            script.push(b'\n');
        }
        let quoted = |path: &Path| quote::for_bash(path.as_os_str().as_bytes());
        let (program, folder) = (quoted(self.program), quoted(self.dir.root()));
        let parts: [&[u8]; 5] = [b"exec ", &program, b" verify --job ", &folder, b" <&3 >&4 3<&- 4>&-\n"];
        script.extend(parts.concat());
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::launcher::slurm::testing::Fakes;
    use crate::mission::hint::with_hints;

    /// A folder of a verification run, and the settings of its launcher.
    struct Run {
        _folder: tempfile::TempDir,
        dir: VerificationDir,
        settings: LauncherSettings,
    }

    impl Run {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let dir = VerificationDir::at(folder.path().join("it's here"));
            fs::create_dir(dir.root()).unwrap();
            let text = "[launchers.a]\nkind = 'slurm'\npartition = 'cpu'\nprologue = ['module load x']";
            let settings = Settings::parse(text).unwrap().launchers["a"].clone();
            Self { _folder: folder, dir, settings }
        }

        async fn start(&self, engine: &Engine) -> Result<RunningVerification, JobError> {
            let (name, program, launcher) = ("ob-1-verify-2".to_owned(), Path::new("/opt/ob"), "a");
            let limit = Duration::from_secs(90);
            let job = VerificationJob { name, dir: &self.dir, program, launcher, settings: &self.settings, limit };
            start_verification(engine, &job, self.dir.open_supervisor_log().unwrap()).await
        }
    }

    #[tokio::test]
    async fn run_ends_with_its_input() {
        for prefix in [&[][..], &["env"]] {
            let script = "printf '%s\\n' \"$@\" > $here/args; echo ready; cat > $here/input; touch $here/ended";
            let fakes = Fakes::new().add("srun", script);
            let run = Run::new();
            let mut started = run.start(&fakes.engine(prefix, &[])).await.unwrap();
            assert!(!fakes.path().join("ended").exists(), "{prefix:?}");
            drop(started.stdin.take());
            assert!(started.exited.await.unwrap().unwrap().success(), "{prefix:?}");
            assert!(fakes.path().join("ended").exists(), "{prefix:?}");
            assert_eq!(fakes.read("input"), "", "{prefix:?}");
            let folder = run.dir.root().display();
            let expected = format!(
                "--job-name=ob-1-verify-2\n--nodes=1\n--ntasks=1\n--export=ALL\n--time=17\n--chdir={folder}\n--partition=cpu\n\
                 bash\n{folder}/job.sh\n"
            );
            assert_eq!(fakes.read("args"), expected, "{prefix:?}");
        }
    }

    /// A waiting `srun` does not read its input.
    #[tokio::test]
    async fn waiting_job_ends_after_its_input() {
        for prefix in [&[][..], &["env"]] {
            let fakes = Fakes::new().add("srun", "exec 3<&0 </dev/null; echo ready; exec sleep 600");
            let mut started = Run::new().start(&fakes.engine(prefix, &[])).await.unwrap();
            drop(started.stdin.take());
            let ended = tokio::time::timeout(Duration::from_secs(60), started.exited).await.expect("it ends");
            assert!(!ended.unwrap().unwrap().success(), "{prefix:?}");
        }
    }

    #[tokio::test]
    async fn dropped_start_cancels_the_job() {
        let fakes = Fakes::new()
            .add("srun", "touch $here/begun; read never")
            .add("scancel", "printf '%s\\n' \"$@\" > $here/cancelled.part; mv $here/cancelled.part $here/cancelled");
        let engine = fakes.engine(&[], &[]);
        let run = Run::new();
        let until = async |name: &str| {
            while !fakes.path().join(name).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let begun = async {
            tokio::select! {
                started = run.start(&engine) => panic!("{started:?}"),
                () = until("begun") => {}
            }
        };
        tokio::time::timeout(Duration::from_secs(60), begun).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), until("cancelled")).await.unwrap();
        assert!(fakes.read("cancelled").contains("--name=ob-1-verify-2"));
    }

    #[tokio::test]
    async fn refusal_has_the_text_and_the_setting() {
        let refuses = "echo 'srun: error: Unable to allocate resources: Invalid partition name specified' >&2; exit 1";
        let fakes = Fakes::new().add("srun", refuses);
        let error = with_hints(&Run::new().start(&fakes.engine(&[], &[])).await.unwrap_err());
        assert!(error.contains("Invalid partition name specified") && error.contains("`partition` in [launchers.a]"));
        let nowhere = Engine::in_environment(&[], [("PATH".into(), "/nowhere".into())]);
        let missing = with_hints(&Run::new().start(&nowhere).await.unwrap_err());
        assert!(missing.contains("srun is not on the PATH"), "{missing}");
    }
}
