use std::fs::OpenOptions;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::mission::archive::Retention;
use crate::mission::create::{Defaults, Draft, Registered, register, register_race};
use crate::mission::entry::{Entry, Line};
use crate::mission::id::ServerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::registry::Registry;
use crate::mission::testing::{brief, draft, requeued};
use crate::store::journal::{Journal, Needed};

const RETENTION: Retention = Retention { newest: 2, slack: 1 };

fn open(folder: &Path, name: &str) -> Journal {
    let mut journal = Journal::open(&folder.join("journal"), ServerId::from(name)).unwrap();
    journal.retention = RETENTION;
    journal
}

#[derive(Debug, Clone)]
enum Step {
    /// A mission for the first task, with this request id, that needs the last task.
    Create(usize, Option<usize>, Option<usize>),
    /// A race of two workers for the first task, which needs the second.
    Race(usize, Option<usize>),
    /// The next attempt of a worker begins and ends.
    Settle(usize, bool),
    Report(usize),
    Retry(usize),
    Note(usize),
    Succeed,
    /// The server stops and starts again.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let few = prop::option::of(0..4usize);
    prop_oneof![
        4 => (0..6usize, few.clone(), few).prop_map(|(task, request, needs)| Step::Create(task, request, needs)),
        2 => (0..6usize, prop::option::of(0..4usize)).prop_map(|(task, needs)| Step::Race(task, needs)),
        6 => (0..12usize, any::<bool>()).prop_map(|(at, good)| Step::Settle(at, good)),
        6 => (0..12usize).prop_map(Step::Report),
        1 => (0..12usize).prop_map(Step::Retry),
        1 => (0..12usize).prop_map(Step::Note),
        1 => Just(Step::Succeed),
        1 => Just(Step::Restart),
    ]
}

/// Two servers on one folder, and the registry as it would be if nothing ever moved.
struct Pair {
    folder: tempfile::TempDir,
    servers: [Journal; 2],
    all: Registry,
    boss: BossId,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers = [open(folder.path(), "s0"), open(folder.path(), "s1")];
        Self { folder, servers, all: Registry::default(), boss: "anon:0".into() }
    }

    fn step(&mut self, by: usize, step: Step) {
        match step {
            Step::Create(task, request, needs) => self.create(by, task, request, needs),
            Step::Race(task, needs) => self.create_all(by, task, None, needs, 2),
            Step::Settle(at, good) => self.settle(by, at, if good { Ending::Completed } else { Ending::Failed }),
            Step::Report(at) => self.report(by, at),
            Step::Retry(at) => self.retry(by, at),
            Step::Note(at) => {
                let Some(worker) = self.worker(at) else { return };
                let needed = Needed { names: vec![worker.id.to_string()], ..Needed::default() };
                let (into, commit) = ("main".to_owned(), "c".to_owned());
                self.change(
                    by,
                    &needed,
                    vec![Entry::Integrated { worker: worker.id.clone(), into, commit, source: None, partial: false }],
                );
            }
            Step::Succeed => {
                let to = BossId::from(format!("anon:{}", self.all.seq));
                let from = std::mem::replace(&mut self.boss, to.clone());
                self.change(by, &Needed::default(), vec![Entry::BossSucceeded { from: vec![from], to }]);
            }
            Step::Restart => self.servers[by] = open(self.folder.path(), &format!("s{by}")),
        }
    }

    fn create(&mut self, by: usize, task: usize, request: Option<usize>, needs: Option<usize>) {
        self.create_all(by, task, request, needs, 1);
    }

    fn create_all(&mut self, by: usize, task: usize, request: Option<usize>, needs: Option<usize>, racers: usize) {
        let draft = Draft {
            task_id: Some(TaskId::from(format!("t{task}"))),
            request_id: request.map(|it| format!("r{it}")),
            depends_on: needs.map(|it| format!("t{it}")).into_iter().collect(),
            context_from: needs.filter(|it| it % 2 == 0).map(|it| format!("w-{}", it + 1)).into_iter().collect(),
            ..draft("t")
        };
        let names = draft.depends_on.iter().chain(&draft.context_from).cloned().collect();
        let needed = Needed { names, requests: draft.request_id.iter().cloned().collect() };
        let drafts = vec![draft; racers];
        let (boss, all) = (self.boss.clone(), self.all.clone());
        let decide = |registry: &Registry| {
            let defaults = Defaults { worktrees: Path::new("/w"), branch_prefix: "o/", integration_branch: None };
            let register = if racers > 1 { register_race } else { register };
            let made = register(registry, &boss, &drafts, defaults);
            made.into_iter().map(|made| made.map_err(|_| ())).collect::<Vec<_>>()
        };
        let (made, seq) = self.servers[by]
            .transact_with(Timestamp::UNIX_EPOCH, &needed, |registry| {
                let made = decide(registry);
                let entries = made.iter().filter_map(created).collect();
                (entries, (made, registry.seq + 1))
            })
            .unwrap();
        assert_eq!(made, decide(&all), "decided as if nothing were archived");
        self.note(by, seq, made.iter().filter_map(created).collect());
    }

    fn settle(&mut self, by: usize, at: usize, ending: Ending) {
        let Some(worker) = self.worker(at).filter(|worker| worker.status == WorkerStatus::Queued) else { return };
        let attempt = worker.attempt + 1;
        let mut brief = Box::new(brief(attempt, ending));
        brief.changes.commits = 1;
        let settled = Entry::Settled { worker: worker.id.clone(), brief };
        let entries = vec![Entry::Starting { worker: worker.id.clone(), attempt }, settled];
        self.change(by, &Needed::default(), entries);
    }

    fn report(&mut self, by: usize, at: usize) {
        let Some(worker) = self.worker(at).filter(|worker| worker.status.is_settled()) else { return };
        let settled = vec![(worker.id.clone(), worker.attempt)];
        self.change(
            by,
            &Needed::default(),
            vec![Entry::Notified { boss: self.boss.clone(), settled, blocked: vec![] }],
        );
        let deliveries = vec![self.all.seq];
        self.change(
            by,
            &Needed::default(),
            vec![Entry::Acknowledged { deliveries, settled: Vec::new(), blocked: Vec::new() }],
        );
    }

    fn retry(&mut self, by: usize, at: usize) {
        let Some(worker) = self.worker(at).filter(|worker| worker.status.is_settled()) else { return };
        let mut names: Vec<String> = worker.mission.depends_on.iter().map(|task| task.to_string()).collect();
        names.push(worker.id.to_string());
        self.change(by, &Needed { names, ..Needed::default() }, vec![requeued(&worker.id)]);
    }

    fn worker(&self, at: usize) -> Option<Arc<Worker>> {
        self.all.workers().nth(at).cloned()
    }

    fn change(&mut self, by: usize, needed: &Needed, entries: Vec<Entry>) {
        let decide = |registry: &Registry| (entries.clone(), registry.seq + 1);
        let seq = self.servers[by].transact_with(Timestamp::UNIX_EPOCH, needed, decide).unwrap();
        self.note(by, seq, entries);
    }

    fn note(&mut self, by: usize, seq: u64, entries: Vec<Entry>) {
        for (n, entry) in entries.into_iter().enumerate() {
            let server = ServerId::from(format!("s{by}"));
            self.all.apply(&Line { seq: seq + n as u64, at: Timestamp::UNIX_EPOCH, server, entry });
        }
    }

    /// Both servers find each worker once by each of its names, as they would without a history.
    fn check(&mut self) {
        for server in &mut self.servers {
            server.catch_up().unwrap();
            for worker in self.all.workers() {
                assert_eq!(server.find(worker.id.as_str()).as_ref(), Some(worker));
                assert_eq!(server.find(&format!("w-{}", worker.number().unwrap())).as_ref(), Some(worker));
                assert_eq!(server.find(worker.task().as_str()).as_ref(), self.all.task(worker.task()));
            }
            let here = server.registry().workers().count();
            let moved: Vec<_> = server.archived().map(|worker| worker.id.clone()).collect();
            assert!(moved.iter().all(|id| server.registry().get(id).is_none()));
            assert_eq!(here + moved.len(), self.all.workers().count());
            assert_eq!(server.registry().last_number, self.all.last_number);
            for open in server.registry().workers().filter(|worker| !worker.status.is_settled()) {
                use crate::mission::graph::{bases, readiness};
                assert_eq!(readiness(server.registry(), open), readiness(&self.all, open));
                assert_eq!(bases(server.registry(), open, None), bases(&self.all, open, None));
            }
        }
        assert_eq!(self.servers[0].registry(), self.servers[1].registry());
    }
}

fn created(made: &Result<Registered, ()>) -> Option<Entry> {
    match made {
        Ok(Registered::New(new)) => Some(Entry::Created { workers: vec![(**new).clone()] }),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn archiving_changes_no_answer(
        steps in prop::collection::vec((0..2usize, any_step()), 0..80),
    ) {
        let mut pair = Pair::new();
        for (by, step) in steps {
            pair.step(by, step);
            pair.check();
        }
    }
}

/// Six workers, settled and reported; the oldest four are archived.
fn with_four_moved() -> Pair {
    let mut pair = Pair::new();
    for at in 0..6 {
        pair.create(0, at, Some(at), None);
        pair.settle(0, at, Ending::Completed);
        pair.report(0, at);
    }
    assert_eq!(pair.servers[0].in_history(), 4);
    pair
}

#[test]
fn archived_requests_and_tasks_are_found() {
    let mut pair = with_four_moved();
    pair.create(1, 5, Some(0), None);
    pair.create(1, 5, None, Some(1));
    pair.check();
    assert_eq!(pair.all.workers().count(), 7, "one was here before");
}

#[test]
fn crash_before_archiving_leaves_one_worker() {
    let mut pair = with_four_moved();
    let kept = pair.servers[0].registry().workers().next().cloned().unwrap();
    let mut history = History::open(pair.folder.path().join("history.jsonl")).unwrap();
    history.append(&[HistoryRecord::Worker(kept)]).unwrap();
    pair.check();
    pair.retry(1, 4);
    pair.check();
}

#[test]
fn damaged_line_costs_only_its_worker() {
    let mut pair = with_four_moved();
    let path = pair.folder.path().join("history.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    let second = bytes.windows(5).position(|it| it == b"w-2-t").unwrap();
    bytes[second - 9..second + 3].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"worker\":{\"id\":\"w-9").unwrap();
    let mut late = open(pair.folder.path(), "late");
    let found = |journal: &Journal, name: &str| journal.find(name).map(|worker| worker.id.to_string());
    assert_eq!(found(&late, "w-1").as_deref(), Some("w-1-t"));
    assert_eq!(found(&late, "w-2"), None);
    assert_eq!(found(&late, "t2").as_deref(), Some("w-3-t"));

    // The next that moves is written over the torn end.
    late.retention = RETENTION;
    pair.servers[0] = late;
    pair.create(0, 5, None, None);
    pair.settle(0, 6, Ending::Completed);
    pair.report(0, 6);
    pair.create(0, 4, None, None);
    pair.settle(0, 7, Ending::Completed);
    assert_eq!(found(&open(pair.folder.path(), "last"), "w-5").as_deref(), Some("w-5-t"));
    assert!(pair.servers[0].registry().get(&WorkerId::new(5, "t")).is_none());
}

#[test]
fn removed_history_is_rewritten_and_newer_refused() {
    let mut pair = with_four_moved();
    let path = pair.folder.path().join("history.jsonl");
    let before = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    pair.retry(0, 0);
    pair.check();
    assert_eq!(std::fs::read(&path).unwrap(), before);

    std::fs::write(&path, "{\"format\":99}\n{\"strange\":true}\n").unwrap();
    let refused = Journal::open(&pair.folder.path().join("journal"), ServerId::from("b"));
    assert!(matches!(refused, Err(JournalError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"{\"format\":99}\n{\"strange\":true}\n");
}
