use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::create::Draft;
use super::super::entry::Entry;
use super::super::lifecycle::Ending;
use super::super::testing::{apply, create, draft, needs, requeued, settle};
use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Settle(usize),
    Requeue(usize),
    /// The server of this number answers a wait.
    Answer(usize),
    /// The boss's next request reaches it.
    Arrive(usize),
    /// The last answer was withdrawn before it was sent.
    Withdraw(usize),
    /// The server gets the receipt of what the boss received at this place.
    HandBack(usize, usize),
    /// The client opens a background wait, or asks this server for the end of the open one.
    Poll(usize),
    /// The conversation is given the end of this wait, which the client keeps through kills and restarts.
    Give(usize),
    /// The conversation is cleared, or another one is resumed.
    Clear,
    /// The conversation calls a tool of this server, which reads its transcript.
    Call(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize).prop_map(Step::Settle),
        (0..4usize).prop_map(Step::Requeue),
        (0..2usize).prop_map(Step::Answer),
        (0..2usize).prop_map(Step::Arrive),
        (0..2usize).prop_map(Step::Withdraw),
        (0..2usize, 0..8usize).prop_map(|(server, at)| Step::HandBack(server, at)),
        (0..2usize).prop_map(Step::Poll),
        (0..2usize).prop_map(Step::Poll),
        (0..4usize).prop_map(Step::Give),
        Just(Step::Clear),
        (0..2usize).prop_map(Step::Call),
    ]
}

const SERVERS: [&str; 2] = ["s", "other"];

/// The sequence number of a delivery, and its content.
type Delivery = (u64, Vec<(WorkerId, u32)>);

/// Workers, with the number of the attempt that settled.
type Settlements = Vec<(WorkerId, u32)>;

/// A boss with two servers, one after the other or both at once.
#[derive(Default)]
struct Model {
    registry: Registry,
    ids: Vec<WorkerId>,
    /// Deliveries of each server that are not acknowledged yet, with their content.
    open: [Vec<Delivery>; 2],
    /// The settlements that the boss received: worker, attempt, marked.
    sent: Vec<(WorkerId, u32, bool)>,
    /// The receipts of `sent`, by worker and attempt.
    receipts: BTreeMap<(WorkerId, u32), String>,
    /// The settlements whose receipts were handed back.
    handed_back: BTreeSet<(WorkerId, u32)>,
    /// The background waits, with the content of those that have ended.
    waits: Vec<(WaitId, Option<Settlements>)>,
    /// The waits whose ends the conversation shows.
    shown: Vec<WaitId>,
    /// The settlements that have provably arrived.
    arrived: BTreeSet<(WorkerId, u32)>,
}

impl Model {
    fn new() -> Self {
        let mut registry = Registry::default();
        let made = create(&mut registry, &[draft("a"), draft("b"), draft("c"), draft("d")]);
        Self { ids: made.into_iter().map(Result::unwrap).collect(), registry, ..Self::default() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Settle(at) => settle(&mut self.registry, &self.ids[at].clone(), Ending::Completed),
            Step::Requeue(at) => apply(&mut self.registry, "s", requeued(&self.ids[at])),
            Step::Answer(server) => self.answer(server),
            Step::Arrive(server) => {
                let (offers, settled): (Vec<_>, Vec<_>) = self.open[server].drain(..).unzip();
                self.arrived.extend(settled.concat());
                let delivered =
                    Entry::Acknowledged { deliveries: offers, settled: settled.concat(), blocked: Vec::new() };
                apply(&mut self.registry, SERVERS[server], delivered);
            }
            Step::Withdraw(server) => {
                let Some((offer, what)) = self.open[server].pop() else { return };
                for (id, attempt) in what {
                    let at = self.sent.iter().rposition(|(sent, number, _)| *sent == id && *number == attempt);
                    self.sent.remove(at.expect("it was sent"));
                }
                apply(&mut self.registry, SERVERS[server], Entry::Withdrawn { delivery: offer });
            }
            Step::HandBack(server, at) => self.hand_back(server, at),
            Step::Poll(server) => self.poll(server),
            Step::Give(at) => self.shown.extend(self.ended().get(at).map(|(id, _)| id.clone())),
            Step::Clear => self.shown.clear(),
            Step::Call(server) => self.call(server),
        }
    }

    fn ended(&self) -> Vec<(WaitId, Vec<(WorkerId, u32)>)> {
        self.waits.iter().filter_map(|(id, end)| Some((id.clone(), end.clone()?))).collect()
    }

    fn poll(&mut self, server: usize) {
        let boss = BossId::from("b");
        let Some((id, _)) = self.waits.iter().find(|(_, end)| end.is_none()).cloned() else {
            let id = WaitId::new("any-4-of-4", &self.waits.len().to_string());
            self.waits.push((id.clone(), None));
            let deadline = jiff::Timestamp::MAX;
            apply(&mut self.registry, SERVERS[server], Entry::WaitOpened { id, boss, workers: Vec::new(), deadline });
            return;
        };
        let me = ServerId::from(SERVERS[server]);
        let due_now = due(&self.registry, &boss, &Selection::Mine, &me);
        if due_now.settled.is_empty() {
            return;
        }
        let content = content_of(&due_now);
        let recorded = content.to_record(&self.registry, &me, &boss, &Selection::Mine).expect("it is due");
        self.note_sent(&content);
        let settled = recorded.settled.clone();
        let ended = Entry::WaitEnded { id: id.clone(), settled, blocked: Vec::new(), cancelled: None };
        apply(&mut self.registry, SERVERS[server], ended);
        self.waits.iter_mut().find(|it| it.0 == id).expect("it is open").1 = Some(recorded.settled);
    }

    fn call(&mut self, server: usize) {
        let boss = BossId::from("b");
        let known = unacknowledged_waits(&self.registry, &boss);
        let shown: Vec<WaitId> = self.shown.iter().filter(|id| known.contains(id)).cloned().collect();
        for entry in acknowledge_waits(&self.registry, &boss, &shown) {
            apply(&mut self.registry, SERVERS[server], entry);
        }
        let arrived = self.ended().into_iter().filter(|(id, _)| self.shown.contains(id));
        self.arrived.extend(arrived.flat_map(|(_, settled)| settled));
    }

    fn note_sent(&mut self, content: &Content) {
        for it in &content.settled {
            let settlement = (it.worker.clone(), it.attempt);
            assert!(!self.handed_back.contains(&settlement), "{settlement:?} was sent after its receipt");
            let worker = self.registry.get(&it.worker).expect("a known worker");
            let receipt = receipt(worker).expect("a settled worker has a receipt");
            let known = self.receipts.entry(settlement).or_insert_with(|| receipt.clone());
            assert_eq!(*known, receipt, "every repetition has the same");
            self.sent.push((it.worker.clone(), it.attempt, it.redelivered));
        }
    }

    fn hand_back(&mut self, server: usize, at: usize) {
        let Some((id, attempt, _)) = self.sent.get(at).cloned() else { return };
        let settlement = (id, attempt);
        let receipts = [self.receipts[&settlement].clone()];
        for entry in acknowledge_receipts(&self.registry, &BossId::from("b"), &receipts) {
            apply(&mut self.registry, SERVERS[server], entry);
        }
        assert!(acknowledge_receipts(&self.registry, &BossId::from("b"), &receipts).is_empty());
        // An answer that has arrived is not withdrawn.
        let open = self.open.iter_mut().flatten();
        open.for_each(|(_, settled)| settled.retain(|it| *it != settlement));
        self.arrived.insert(settlement.clone());
        self.handed_back.insert(settlement);
    }

    fn answer(&mut self, server: usize) {
        let (boss, me) = (BossId::from("b"), ServerId::from(SERVERS[server]));
        let due_now = due(&self.registry, &boss, &Selection::Mine, &me);
        let settled: Vec<_> = due_now.settled.iter().map(|it| (it.worker.id.clone(), it.worker.attempt)).collect();
        let content = content_of(&due_now);
        self.note_sent(&content);
        if settled.is_empty() {
            return;
        }
        let offered = Entry::Notified { boss, settled: settled.clone(), blocked: Vec::new() };
        apply(&mut self.registry, SERVERS[server], offered);
        self.open[server].push((self.registry.seq, settled));
    }
}

fn content_of(due: &Due<'_>) -> Content {
    let sent = |it: &DueSettlement| SentSettlement {
        worker: it.worker.id.clone(),
        attempt: it.worker.attempt,
        redelivered: it.redelivered,
    };
    Content { settled: due.settled.iter().map(sent).collect(), blocked: Vec::new() }
}

proptest! {
    /// In any order of steps, nothing is sent twice without a mark, and nothing is left out.
    #[test]
    fn settlement_arrives_once_or_is_marked(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            // What was settled and retried before a request is superseded, not lost.
            for (id, attempt, marked) in model.sent.clone() {
                let unmarked = model.sent.iter().filter(|it| (&it.0, it.1, it.2) == (&id, attempt, false)).count();
                prop_assert!(unmarked <= 1, "{id} {attempt} was sent {unmarked} times unmarked");
                prop_assert!(!marked || model.sent.iter().filter(|it| it.0 == id && it.1 == attempt).count() >= 1);
            }
            for worker in model.registry.workers().filter(|it| it.notification == Notification::Acknowledged) {
                let settlement = (worker.id.clone(), worker.attempt);
                prop_assert!(model.arrived.contains(&settlement), "{settlement:?} was acknowledged without evidence");
            }
        }
        model.step(Step::Answer(0));
        for worker in model.registry.workers().filter(|worker| worker.status.is_settled()) {
            let sent = model.sent.iter().any(|(id, attempt, _)| *id == worker.id && *attempt == worker.attempt);
            prop_assert!(sent, "{} was never sent", worker.id);
        }
        let receipts: BTreeSet<&String> = model.receipts.values().collect();
        prop_assert_eq!(receipts.len(), model.receipts.len(), "each settlement has its own");
    }
}

#[test]
fn only_the_boss_acknowledges_by_receipt() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
    assert_eq!(receipt(registry.get(&id).unwrap()), None, "it is open");
    settle(&mut registry, &id, Ending::Completed);
    let first = receipt(registry.get(&id).unwrap()).unwrap();
    let entries = |registry: &Registry, boss: &str, receipt: &str| {
        acknowledge_receipts(registry, &BossId::from(boss), &[receipt.to_owned()]).len()
    };
    assert_eq!((entries(&registry, "other", &first), entries(&registry, "b", "r-1-1-1")), (0, 0));
    assert_eq!(entries(&registry, "b", &format!(" {first}\n")), 2, "even if no server recorded that it was sent");
    apply(&mut registry, "s", requeued(&id));
    settle(&mut registry, &id, Ending::Completed);
    assert_eq!(entries(&registry, "b", &first), 0, "it is of an earlier attempt");
}

#[test]
fn background_wait_redelivers_until_shown() {
    let mut model = Model::new();
    for step in [Step::Settle(0), Step::Poll(0), Step::Poll(0), Step::Call(0), Step::Answer(0), Step::Withdraw(0)] {
        model.step(step);
    }
    model.step(Step::Poll(1));
    model.step(Step::Poll(1));
    let marks: Vec<bool> = model.sent.iter().map(|(_, _, marked)| *marked).collect();
    assert_eq!(marks, [false, true]);
    for step in [Step::Give(0), Step::Clear, Step::Call(0), Step::Answer(0), Step::Withdraw(0), Step::Give(1)] {
        model.step(step);
    }
    assert_eq!(unacknowledged_waits(&model.registry, &BossId::from("b")).len(), 2);
    model.step(Step::Call(1));
    assert_eq!(unacknowledged_waits(&model.registry, &BossId::from("b")), []);
    model.step(Step::Answer(0));
    assert_eq!(model.sent.len(), 2, "it has arrived");
}

#[test]
fn ended_wait_is_final_for_its_boss_only() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
    let (wait, boss) = (WaitId::new("any-1-of-1", "a"), BossId::from("b"));
    let deadline = jiff::Timestamp::MAX;
    let opened = Entry::WaitOpened { id: wait.clone(), boss: boss.clone(), workers: Vec::new(), deadline };
    apply(&mut registry, "s", opened);
    settle(&mut registry, &id, Ending::Completed);
    let end = |cancelled: Option<&str>, settled| Entry::WaitEnded {
        id: wait.clone(),
        settled,
        blocked: Vec::new(),
        cancelled: cancelled.map(str::to_owned),
    };
    apply(&mut registry, "s", end(None, vec![(id.clone(), 1)]));
    let before = registry.waits[&wait].clone();
    apply(&mut registry, "s", end(Some("late"), Vec::new()));
    assert_eq!(registry.waits[&wait], before);
    assert_eq!(acknowledge_waits(&registry, &BossId::from("other"), std::slice::from_ref(&wait)), []);
    apply(&mut registry, "s", Entry::BossSucceeded { from: vec![boss], to: BossId::from("heir") });
    assert_eq!(acknowledge_waits(&registry, &BossId::from("heir"), std::slice::from_ref(&wait)).len(), 1);
}

#[test]
fn two_servers_redeliver_at_most_once() {
    let mut model = Model::new();
    model.step(Step::Settle(0));
    for _wait in 0..5 {
        for server in 0..2 {
            model.step(Step::Arrive(server));
            model.step(Step::Answer(server));
        }
    }
    let marks: Vec<bool> = model.sent.iter().map(|(_, _, marked)| *marked).collect();
    assert_eq!(marks, [false, true]);
}

#[test]
fn failure_with_a_pending_retry_is_not_due() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[Draft { max_attempts: 2, ..draft("a") }]).remove(0).unwrap();
    settle(&mut registry, &id, Ending::Failed);
    let sent = due(&registry, &BossId::from("b"), &Selection::Mine, &ServerId::from("s"));
    assert_eq!((sent.settled.len(), sent.open), (0, 1));
}

#[test]
fn block_is_sent_once() {
    let mut registry = Registry::default();
    let (boss, me) = (BossId::from("b"), ServerId::from("s"));
    let made = create(&mut registry, &[draft("a"), needs("b", &["a"])]);
    let id = made[0].as_ref().unwrap();
    settle(&mut registry, id, Ending::Failed);
    let blocked = due(&registry, &boss, &Selection::Mine, &me).blocked.len();
    let on = made[1].clone().unwrap();
    apply(&mut registry, "s", Entry::Notified { boss: boss.clone(), settled: Vec::new(), blocked: vec![on] });
    assert_eq!((blocked, due(&registry, &boss, &Selection::Mine, &me).blocked.len()), (1, 0));
}
