//! Named steps at which a debug build can be made to crash, for `tests/crash_points`. A release build contains none of
//! this.
//!
//! `ORCHESTRATOR_CRASH_AT=<name>:<n>` names the step and the count at which to crash. `ORCHESTRATOR_CRASH_LOG=<file>`
//! counts the passes of all processes, one line for each pass, so that exactly one process crashes, once.

use std::path::Path;

macro_rules! points {
    ($($point:ident),* $(,)?) => {
        /// A step of the store, the server or the supervisor. The test goes through all of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point { $($point),* }

        #[cfg(debug_assertions)]
        const POINTS: &[Point] = &[$(Point::$point),*];
    };
}

points! {
    // The journal.
    JournalAppend, JournalLine, JournalWritten, JournalSynced,
    RotationBegins, SegmentWritten, SegmentOpened, OldSegmentRemoved,
    // The server: what it decided is saved, and not yet acted on or answered.
    Joined, Decided, BatchRegistered, InboxEntryPosted, CancelNoted, Requeued, RetriedByItself, Notified, Acknowledged,
    AnswerSent, AnswerWritten, WaitOpened, WaitAnswerStored, WaitEnded, CalledOffRecorded, VerificationPrepared, Proven,
    Merged, WorktreeRemoved, Leaving,
    // The server, on the way from admitted to running, and to the end.
    Admitted, BranchBegun, WorktreeRecorded, WorktreeMade, WorktreeRemembered, AttemptPrepared, SupervisorSpawned, SupervisorReady, EndSeen, EndNoted,
    TakenOver, LossCleanedUp, LossRecorded,
    // The server, where workers run as jobs of a cluster.
    JobPrepared, JobSubmitted, JobNoted, JobFenced, JobRevoked,
    // The pruning of builds.
    SetupForgotten, BuildsAside, BuildsDeleted,
    // The supervisor.
    Claimed, SaidReady, SetUp, CliSpawned, CliEnded, TurnSwept, ChangesCommitted, Verified, Swept, FactsRead, InboxClosed,
    Settled,
    // The supervisor, where a confined worker has a clone.
    CloneMade, CloneEntered, CloneTaken, CloneFetched,
    // The supervisor of a verification of an integration.
    VerificationBegun, VerificationTreeMade, VerificationVerified, VerificationTreeRemoved,
}

/// A moment of a file that is written beside its name and then moved there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Written,
    Named,
}

/// Kinds of files, by name, by folder or by ending.
#[cfg(debug_assertions)]
const FILES: [&str; 27] = [
    "launch.json",
    "environment.json",
    "id.json",
    "cli-settings",
    "cli-settings.json",
    ".gitignore",
    "bases",
    "git-configuration.json",
    "worker.json",
    "processes.json",
    "orchestrator-state.json",
    "status.json",
    "assignment.json",
    "worktree.json",
    "setup.json",
    "pruned.json",
    "ports.json",
    "claim",
    "verification.json",
    "result.json",
    "outcome.json",
    "reserve",
    "closing",
    "notify",
    "inbox",
    "waits",
    "jsonl",
];

/// Returns whether this process runs for `tests/crash_points`.
#[inline(always)]
pub fn is_armed() -> bool {
    cfg!(debug_assertions) && std::env::var_os("ORCHESTRATOR_CRASH_AT").is_some()
}

/// Crashes if this step and this pass are armed.
#[inline(always)]
pub fn at(point: Point) {
    in_the_middle(point, || {});
}

/// Crashes after half of the step if it is armed.
#[inline(always)]
pub fn in_the_middle(_point: Point, _half: impl FnOnce()) {
    #[cfg(debug_assertions)]
    if is_armed() && armed::is_due(&format!("{_point:?}")) {
        _half();
        std::process::abort();
    }
}

/// Crashes at this moment of writing a file if it is armed.
#[inline(always)]
pub fn at_file(_path: &Path, _moment: Moment) {
    #[cfg(debug_assertions)]
    if is_armed() && armed::is_due(&format!("{_moment:?}({})", armed::kind(_path))) {
        std::process::abort();
    }
}

/// Returns all names that can be armed.
#[cfg(debug_assertions)]
pub fn names() -> Vec<String> {
    let files = FILES.iter().flat_map(|file| [Moment::Written, Moment::Named].map(|it| format!("{it:?}({file})")));
    POINTS.iter().map(|point| format!("{point:?}")).chain(files).collect()
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs::OpenOptions;
    use std::io::{Read, Write};
    use std::path::Path;

    pub fn is_due(name: &str) -> bool {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(armed) = variable("ORCHESTRATOR_CRASH_AT") else { return false };
        let (wanted, time) = armed.split_once(':').unwrap_or((&armed, "1"));
        if wanted != name {
            return false;
        }
        let path = variable("ORCHESTRATOR_CRASH_LOG").expect("ORCHESTRATOR_CRASH_LOG names a file");
        let opened = OpenOptions::new().create(true).read(true).append(true).open(path);
        let mut file = opened.expect("a log of crashes");
        // Locked until the file is dropped, so that the count is right if several processes pass at once.
        file.lock().expect("a lock on the log of crashes");
        let mut before = String::new();
        file.read_to_string(&mut before).expect("a readable log of crashes");
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        file.write_all(format!("{}\n", arguments.join(" ")).as_bytes()).expect("room in the log of crashes");
        Some(before.lines().count() + 1) == time.parse().ok()
    }

    /// Returns the kind of a file. Panics if it is not in the table, so that none is forgotten.
    pub fn kind(path: &Path) -> &'static str {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        let known = |kind: &&&str| **kind == name || **kind == folder || **kind == ending;
        super::FILES.iter().find(known).copied().unwrap_or_else(|| panic!("add {} to FILES", path.display()))
    }
}
