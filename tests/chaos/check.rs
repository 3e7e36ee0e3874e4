//! Checks from outside at the end of a round: in the files, in git, and in the traces of the fake CLIs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::files::lease::is_held;
use orchestrator_boss::mission::id::ServerId;
use orchestrator_boss::store::journal::Journal;
use serde_json::Value;

use crate::kind::Kind;
use crate::model::{Mission, Model};
use crate::world::{CEILING, World};

/// Checks, while servers run, that no open worker has the lease of a dead server.
pub fn leases(world: &World) {
    let Ok(dir) = StateDir::open(&world.state_dir()) else { return };
    let mut journal = Journal::open(&dir.journal(), ServerId::from("s-look")).expect("the journal can be read");
    let began = Instant::now();
    loop {
        journal.catch_up().expect("the journal can be read");
        let open = journal.registry().workers().filter(|worker| !worker.status.is_settled());
        let orphans: Vec<_> = open.filter(|worker| !is_held(&dir.server_lock(&worker.lease))).collect();
        if orphans.is_empty() {
            return;
        }
        assert!(began.elapsed() < CEILING, "no server takes over: {orphans:#?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Checks everything once all servers have exited.
pub fn all(world: &World, model: &Model) {
    let facts = Facts::at(world, model);
    for (request, mission) in &model.missions {
        let worker = mission.worker.as_ref().unwrap_or_else(|| panic!("{request} was never answered"));
        facts.check_reports(request, worker, mission);
        facts.check_ending(request, worker, mission);
        facts.check_starts(worker, mission);
        facts.check_supervisors(worker);
        facts.check_work(request, worker, mission);
        facts.check_race(request, worker, mission);
    }
    facts.check_main_checkout();
}

struct Facts<'a> {
    world: &'a World,
    model: &'a Model,
    /// The state file's tasks, by worker.
    tasks: BTreeMap<String, Value>,
    /// Worker, attempt, and the step that it reached.
    trace: Vec<(String, u64, String)>,
    /// Worker, attempt, and the process that started a CLI. Empty without a cluster.
    starts: Vec<(String, u64, String)>,
    /// Files that a ref contains.
    committed: BTreeSet<String>,
}

impl<'a> Facts<'a> {
    fn at(world: &'a World, model: &'a Model) -> Self {
        let tasks = tasks(world);
        assert_eq!(tasks.len(), model.missions.len(), "{tasks:#?}");
        // -m: a salvage commit may have several parents.
        let log = world.git(&["log", "--all", "-m", "--name-only", "--format="]).expect("git works");
        let committed = log.lines().map(str::to_owned).collect();
        Self {
            world,
            model,
            tasks,
            trace: lines_of(&world.trace()),
            starts: lines_of(&world.shared("starts")),
            committed,
        }
    }

    fn task(&self, worker: &str) -> &Value {
        self.tasks.get(worker).unwrap_or_else(|| panic!("{worker} is not in the state file"))
    }

    fn check_reports(&self, request: &str, worker: &str, mission: &Mission) {
        let reports: Vec<_> = self.model.reports.iter().filter(|((id, _), _)| id == worker).collect();
        for (attempt, times) in &reports {
            assert!(**times <= 1, "{attempt:?} was reported {times} times without a mark");
        }
        let task = self.task(worker);
        if is_waiting(task) {
            return assert!(
                self.model.reported_blocks.contains(&mission.task),
                "the block of {request} was not reported"
            );
        }
        let last = task["attempts"].as_u64().expect("a number");
        assert!(
            reports.iter().any(|((_, attempt), _)| *attempt == last),
            "the end of {worker} was never reported: {task:#}"
        );
        if mission.disturbed.is_none() {
            assert_eq!(reports.len(), 1, "{worker} settled once: {reports:?}");
        }
    }

    fn check_ending(&self, request: &str, worker: &str, mission: &Mission) {
        let task = self.task(worker);
        let attempt = task["attempts"].as_u64().expect("a number");
        if is_waiting(task) {
            let broken = mission.needs.iter().any(|need| {
                // In a race only the winner must complete.
                let racers = self.model.racers(need).map(|racer| self.task(self.model.worker(racer)));
                let mut decisive =
                    racers.filter(|task| task["race"].is_null() || task["race"]["winner"] == task["worker_id"]);
                decisive.all(|need| need["status"] != "completed")
            });
            assert!(broken, "{request} waits for nothing: {task:#}");
            // Earlier attempts began before it was blocked.
            let began = self.trace.iter().filter(|(id, _, word)| id == worker && word == "begin");
            let newest = began.map(|(_, attempt, _)| *attempt).max().unwrap_or(0);
            return assert!(newest <= attempt, "{worker} began attempt {newest} though it is blocked: {task:#}");
        }
        let path = self.world.state_dir().join(format!("workers/{worker}/attempts/{attempt}/outcome.json"));
        let record = std::fs::read(&path).unwrap_or_else(|error| panic!("{worker} has no record: {error}: {task:#}"));
        let outcome: Value = serde_json::from_slice(&record).expect("a whole record");
        let status = outcome["status"].as_str().expect("a status");
        assert!(task["status"] == status || task["status"] == "blocked", "{task:#} {outcome:#}");
        assert_eq!(outcome["cleanup"]["survivors"], 0, "{outcome:#}");
        assert!(mission.may_end_as(status), "{request} {mission:?}: {outcome:#}");
        self.check_failure_of_host(mission, &outcome);
        if status == "completed" && !mission.disturbed.messaged && !mission.disturbed.retried {
            assert!(self.has_reached(worker, "end"), "{worker} never came to its end: {outcome:#}");
        }
    }

    /// Checks that only a dead part of the cluster is named as such, and that it only prevents a start where nothing else
    /// fails.
    fn check_failure_of_host(&self, mission: &Mission, outcome: &Value) {
        let failure = &outcome["run"]["failure"]["kind"];
        assert!(failure != "host_lost" || mission.disturbed.host_failed, "{mission:?}: {outcome:#}");
        let fails_itself = mission.kind.ending() == "failed" || mission.kind == Kind::FailsOnce;
        if outcome["status"] == "failed" && !fails_itself {
            assert_eq!(failure, "could_not_start", "{mission:?}: {outcome:#}");
        }
    }

    /// Checks that one supervisor started all CLIs of an attempt.
    fn check_supervisors(&self, worker: &str) {
        let mut by_attempt: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        for (_, attempt, parent) in self.starts.iter().filter(|(id, ..)| id == worker) {
            by_attempt.entry(*attempt).or_default().insert(parent);
        }
        for (attempt, parents) in by_attempt {
            assert_eq!(parents.len(), 1, "attempt {attempt} of {worker} had several supervisors: {parents:?}");
        }
    }

    /// Checks that each attempt was started at most once, and that there was no unrequested retry.
    fn check_starts(&self, worker: &str, mission: &Mission) {
        let began = self.trace.iter().filter(|(id, _, word)| id == worker && word == "begin");
        let mut attempts: Vec<u64> = began.map(|(_, attempt, _)| *attempt).collect();
        let starts = attempts.len();
        attempts.sort_unstable();
        attempts.dedup();
        assert_eq!(attempts.len(), starts, "an attempt of {worker} was started twice");
        if mission.disturbed.is_none() && !is_waiting(self.task(worker)) {
            // A hanging worker is cancelled at the end, possibly before its first line.
            let few = (mission.kind.hangs() || mission.kind.races()) && starts == 0;
            assert!(few || starts == mission.kind.starts(), "{worker} was started {starts} times: {mission:?}");
        }
    }

    /// Checks that the work is committed, or still in the worktree.
    fn check_work(&self, request: &str, worker: &str, mission: &Mission) {
        if !self.has_reached(worker, "wrote") {
            return;
        }
        let file = format!("{request}.txt");
        let task = self.task(worker);
        let worktree = task["worktree"].as_str().expect("each has a worktree");
        let kept = self.committed.contains(&file) || std::path::Path::new(worktree).join(&file).exists();
        assert!(kept, "{worker} lost its work: {mission:?} {task:#}");
        if task["status"] == "completed" {
            assert!(self.committed.contains(&file), "{worker} completed, and its work is not committed: {task:#}");
        }
    }

    /// Checks that all racers name the same winner, if any, and that the winner completed at some time. Without a
    /// winner no racer has completed. Other checks cover settlement and remaining processes.
    fn check_race(&self, request: &str, worker: &str, mission: &Mission) {
        if !mission.kind.races() {
            return;
        }
        let winner = &self.task(worker)["race"]["winner"];
        let winner_of = |racer: &String| &self.task(self.model.worker(racer))["race"]["winner"];
        assert!(self.model.racers(request).all(|racer| winner_of(racer) == winner), "{request}: not one winner");
        let is_winner = winner == worker;
        let completed = self.world.attempts(worker).into_iter().any(|(_, attempt)| {
            let record = std::fs::read(attempt.join("outcome.json")).unwrap_or_default();
            serde_json::from_slice::<Value>(&record).is_ok_and(|outcome| outcome["status"] == "completed")
        });
        assert!(completed || !is_winner, "{worker} has won and never completed");
        assert!(!completed || !winner.is_null(), "{worker} completed, and the race has no winner");
    }

    fn has_reached(&self, worker: &str, how_far: &str) -> bool {
        self.trace.iter().any(|(id, _, word)| id == worker && word == how_far)
    }

    /// Checks that the main checkout has exactly the integrated work.
    fn check_main_checkout(&self) {
        assert_eq!(self.world.git(&["status", "--porcelain"]).as_deref(), Ok(""), "the main checkout was changed");
        assert_eq!(self.world.git(&["branch", "--show-current"]).as_deref(), Ok("main"));
        let files = self.world.git(&["ls-tree", "-r", "--name-only", "main"]).expect("git works");
        let files: BTreeSet<&str> = files.lines().collect();
        // The first commit has a README.
        let mut may = BTreeSet::from(["README".to_owned()]);
        for (request, mission) in &self.model.missions {
            let file = format!("{request}.txt");
            if mission.merged && self.has_reached(self.model.worker(request), "wrote") {
                assert!(files.contains(&*file), "{request} was merged, and {file} is not in main: {files:?}");
            }
            if mission.merge_asked {
                self.add_with_needs(request, &mut may);
            }
        }
        for file in files {
            assert!(may.contains(file), "{file} was merged without a request");
        }
    }

    fn add_with_needs(&self, request: &str, files: &mut BTreeSet<String>) {
        files.insert(format!("{request}.txt"));
        let needs = self.model.missions[request].needs.iter();
        for need in needs.flat_map(|need| self.model.racers(need)) {
            self.add_with_needs(need, files);
        }
    }
}

/// Returns whether the task waits for a task that did not complete.
fn is_waiting(task: &Value) -> bool {
    task["status"] == "blocked" && task["settled_at"].is_null()
}

fn tasks(world: &World) -> BTreeMap<String, Value> {
    let Ok(bytes) = std::fs::read(world.state_dir().join("orchestrator-state.json")) else { return BTreeMap::new() };
    let file: Value = serde_json::from_slice(&bytes).expect("a valid state file");
    let lists = ["tasks", "completed_tasks", "blocked_tasks"];
    let tasks = lists.iter().flat_map(|list| file[list].as_array().expect("a list"));
    let mut by_worker = BTreeMap::new();
    for task in tasks {
        let worker = task["worker_id"].as_str().expect("an id").to_owned();
        assert!(by_worker.insert(worker, task.clone()).is_none(), "{task:#} is there twice");
    }
    by_worker
}

/// Returns the lines that the fake CLIs have written to a file: worker, attempt, and a text.
fn lines_of(file: &Path) -> Vec<(String, u64, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let (tag, word) = line.split_once(' ')?;
        let mut parts = tag.split('.');
        Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, word.to_owned()))
    };
    text.lines().map(|it| line(it).unwrap_or_else(|| panic!("{it:?} is no trace"))).collect()
}
