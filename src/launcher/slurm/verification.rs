//! Verification runs of integrations on a node: `srun` takes the place of the supervisor on this host. It passes on the
//! input and the output, ends with its job, and its job ends with it. So the run ends with its server, as one on this
//! host does.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::cancel::cancel_by_name;
use super::command::{Attached, Engine, shown};
use super::quote;
use super::submit::{JobError, SPARE_MINUTES, refusal, size_options};
use crate::attempt::status::READY;
use crate::attempt::verification_dir::VerificationDir;
use crate::config::LauncherSettings;
use crate::launcher::RunningVerification;

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
    // If it has ended already, its output says so.
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

/// Waits for the end of `srun`. Ends it if the future that started it is dropped.
async fn until_exit(
    mut child: Child,
    dropped: CancellationToken,
    engine: Engine,
    name: String,
) -> io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = dropped.cancelled() => {}
    }
    // It was not reaped, so the number is still its own.
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    pid.map(|pid| kill_process(pid, Signal::TERM));
    if let Err(error) = cancel_by_name(&engine, &name).await {
        tracing::warn!(error, name, "cannot cancel the job of a verification");
    }
    child.wait().await
}

impl VerificationJob<'_> {
    fn arguments(&self) -> Vec<OsString> {
        let minutes = self.limit.as_secs().div_ceil(60).saturating_add(SPARE_MINUTES);
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
