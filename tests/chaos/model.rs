//! What the driver knows of each mission, and what must be true of it in the end.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::boss::{Boss, CEILING, World};

/// Small, seeded, and good enough to choose by (xorshift).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// What a fake worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commits,
    CommitsSlowly,
    LeavesWork,
    Fails,
    Crashes,
    Hangs,
}

const KINDS: [Kind; 6] =
    [Kind::Commits, Kind::CommitsSlowly, Kind::LeavesWork, Kind::Fails, Kind::Crashes, Kind::Hangs];

impl Kind {
    fn script(self) -> &'static str {
        match self {
            Kind::Commits => "session s\nwrite work.txt done\ncommit work\nsay done",
            Kind::CommitsSlowly => "session s\nwrite work.txt done\nsleep 0.4\ncommit work\nsay done",
            Kind::LeavesWork => "session s\nwrite work.txt done\nsleep 0.1\nsay done",
            Kind::Fails => "session s\nsleep 0.1\nresult error it is hard",
            Kind::Crashes => "sleep 0.1\nexit 3",
            Kind::Hangs => "session s\nwrite work.txt done\ndaemon 600\nchild 600\nignore-term\nhang",
        }
    }

    /// How it ends when nobody interferes.
    fn ending(self) -> &'static str {
        match self {
            Kind::Commits | Kind::CommitsSlowly | Kind::LeavesWork => "completed",
            Kind::Fails | Kind::Crashes => "failed",
            Kind::Hangs => "cancelled",
        }
    }
}

#[derive(Debug)]
struct Mission {
    kind: Kind,
    /// Known once a creation was answered.
    worker: Option<String>,
    /// It was cancelled, messaged, or something of it was killed: then more endings are true.
    disturbed: bool,
}

#[derive(Default)]
pub struct Model {
    /// By request id.
    missions: BTreeMap<String, Mission>,
    /// How often each attempt was told without a mark.
    told: BTreeMap<(String, u64), u32>,
}

impl Model {
    pub fn create(&mut self, boss: &mut Boss, dice: &mut Dice) {
        let mut batch = Vec::new();
        for _ in 0..=dice.below(3) {
            let request = format!("r{}", self.missions.len());
            let kind = KINDS[dice.below(KINDS.len() as u64) as usize];
            self.missions.insert(request.clone(), Mission { kind, worker: None, disturbed: false });
            batch.push(request);
        }
        if dice.below(4) == 0 {
            boss.call_and_kill("batch_create_workers", self.batch(&batch));
        } else {
            self.ask_for(boss, &batch);
        }
    }

    fn batch(&self, requests: &[String]) -> Value {
        let workers = requests.iter().map(|request| {
            let prompt = format!("FAKE:\n{}", self.missions[request].kind.script());
            json!({"title": request, "prompt": prompt, "backend": "fake", "request_id": request})
        });
        json!({ "workers": workers.collect::<Vec<_>>() })
    }

    fn ask_for(&mut self, boss: &mut Boss, requests: &[String]) {
        let Some(answer) = boss.call("batch_create_workers", self.batch(requests)) else { return };
        let answer = answer.expect("the batch is accepted");
        for result in answer["results"].as_array().expect("results") {
            let request = &requests[result["index"].as_u64().expect("an index") as usize];
            let worker = result["worker_id"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned();
            let mission = self.missions.get_mut(request).expect("we asked for it");
            assert!(mission.worker.as_ref().is_none_or(|known| *known == worker), "{request} was spawned twice");
            mission.worker = Some(worker);
        }
    }

    /// What was asked for and not answered: all there or not, and the same request never spawns twice.
    pub fn repeat_unanswered(&mut self, boss: &mut Boss) {
        let open = self.missions.iter().filter(|(_, mission)| mission.worker.is_none());
        let open: Vec<String> = open.map(|(request, _)| request.clone()).collect();
        if !open.is_empty() {
            self.ask_for(boss, &open);
        }
    }

    pub fn wait(&mut self, boss: &mut Boss, seconds: u64) -> Option<String> {
        let answer =
            boss.call("wait_for_any_worker", json!({ "timeout_seconds": seconds }))?.expect("a wait never fails");
        for worker in answer["settled"].as_array().into_iter().flatten() {
            let id = worker["worker_id"].as_str().expect("an id").to_owned();
            let attempt = worker["attempt"].as_u64().expect("a number");
            if worker["redelivered"] != true {
                *self.told.entry((id, attempt)).or_default() += 1;
            } else {
                self.told.entry((id, attempt)).or_default();
            }
        }
        answer["status"].as_str().map(str::to_owned)
    }

    fn any_worker(&self, dice: &mut Dice) -> Option<String> {
        let known: Vec<&String> = self.missions.values().filter_map(|mission| mission.worker.as_ref()).collect();
        (!known.is_empty()).then(|| known[dice.below(known.len() as u64) as usize].clone())
    }

    fn disturb(&mut self, worker: &str) {
        let mission = self.missions.values_mut().find(|mission| mission.worker.as_deref() == Some(worker));
        mission.expect("a known worker").disturbed = true;
    }

    pub fn cancel_one(&mut self, boss: &mut Boss, dice: &mut Dice) {
        let Some(worker) = self.any_worker(dice) else { return };
        self.disturb(&worker);
        if dice.below(3) == 0 {
            return boss.call_and_kill("cancel_worker", json!({ "worker_id": worker }));
        }
        if let Some(answer) = boss.call("cancel_worker", json!({ "worker_id": worker })) {
            let answer = answer.expect("a cancellation is answered");
            assert_eq!(answer["survivors"], 0, "{answer}");
        }
    }

    pub fn message_one(&mut self, boss: &mut Boss, dice: &mut Dice) {
        let Some(worker) = self.any_worker(dice) else { return };
        self.disturb(&worker);
        let delivery = if dice.below(2) == 0 { "when_ready" } else { "interrupt" };
        let message = json!({"worker_id": worker, "message": "FAKE:\nsay heard", "delivery": delivery});
        if let Some(answer) = boss.call("send_message_to_worker", message) {
            answer.expect("a message is taken");
        }
    }

    pub fn kill_supervisor(&mut self, world: &World, dice: &mut Dice) {
        self.kill(world, dice, "supervisor");
    }

    pub fn kill_cli(&mut self, world: &World, dice: &mut Dice) {
        self.kill(world, dice, "cli");
    }

    /// By what the status file says, and only while that very process lives.
    fn kill(&mut self, world: &World, dice: &mut Dice, which: &str) {
        let Some(worker) = self.any_worker(dice) else { return };
        let attempts = world.workers().join(&worker).join("attempts");
        let newest = std::fs::read_dir(attempts).into_iter().flatten().flatten().map(|entry| entry.path()).max();
        let status = newest.and_then(|attempt| std::fs::read(attempt.join("status.json")).ok());
        let status: Value = status.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        if let Ok(process) = serde_json::from_value::<orchestrator_boss::process::Identity>(status[which].clone()) {
            self.disturb(&worker);
            orchestrator_boss::process::send(&process, orchestrator_boss::process::Signal::Kill);
        }
    }

    /// Ends what hangs, and waits until there is no more news.
    pub fn finish(&mut self, boss: &mut Boss) {
        self.repeat_unanswered(boss);
        let hanging = self.missions.values().filter(|mission| mission.kind == Kind::Hangs);
        let hanging: Vec<String> = hanging.filter_map(|mission| mission.worker.clone()).collect();
        for worker in hanging {
            let answer =
                boss.call("cancel_worker", json!({ "worker_id": worker })).expect("it lives").expect("answered");
            assert_eq!(answer["survivors"], 0, "{answer}");
        }
        let began = Instant::now();
        while self.wait(boss, 5).as_deref() != Some("idle") {
            assert!(began.elapsed() < CEILING, "not all settle: {:#?}", boss.call("list_worker_missions", json!({})));
        }
    }

    pub fn check(&self, world: &World) {
        for (request, mission) in &self.missions {
            let worker = mission.worker.as_ref().unwrap_or_else(|| panic!("{request} was answered in the end"));
            self.check_told(worker);
            self.check_outcome(world, worker, mission);
        }
        self.check_state_file(world);
    }

    fn check_told(&self, worker: &str) {
        let told: Vec<_> = self.told.iter().filter(|((id, _), _)| id == worker).collect();
        assert!(!told.is_empty(), "the end of {worker} was never told");
        for (attempt, times) in told {
            assert!(*times <= 1, "{attempt:?} was told {times} times without a mark");
        }
    }

    fn check_outcome(&self, world: &World, worker: &str, mission: &Mission) {
        let Some(outcome) = newest_outcome(world, worker) else {
            // Called off before anything of it began: there is nothing to record.
            return assert_eq!(state_of(world, worker)["status"], "cancelled", "{worker} has no outcome record");
        };
        let status = outcome["status"].as_str().expect("a status");
        assert_eq!(outcome["cleanup"]["survivors"], 0, "{outcome:#}");
        if !mission.disturbed {
            assert_eq!(status, mission.kind.ending(), "{worker} {mission:?}: {outcome:#}");
        }
        let worked = matches!(mission.kind, Kind::Commits | Kind::CommitsSlowly | Kind::LeavesWork);
        if worked && status == "completed" && !mission.disturbed {
            let file = world.git(&["show", &format!("orchestrator/{worker}:work.txt")]);
            assert_eq!(file.as_deref(), Ok("done"), "{worker} lost its work");
        }
    }

    fn check_state_file(&self, world: &World) {
        let bytes = std::fs::read(world.repo().join(".orchestrator/orchestrator-state.json")).expect("the state file");
        let file: Value = serde_json::from_slice(&bytes).expect("it is valid");
        let lists = ["tasks", "completed_tasks", "blocked_tasks"];
        let tasks: Vec<&Value> = lists.iter().flat_map(|list| file[list].as_array().expect("a list")).collect();
        assert_eq!(tasks.len(), self.missions.len(), "{file:#}");
        for mission in self.missions.values() {
            let named = tasks.iter().filter(|task| task["worker_id"] == mission.worker.as_deref().unwrap_or_default());
            assert_eq!(named.count(), 1, "{mission:?}");
        }
    }
}

fn state_of(world: &World, worker: &str) -> Value {
    let file = std::fs::read(world.repo().join(".orchestrator/orchestrator-state.json")).expect("the state file");
    let file: Value = serde_json::from_slice(&file).expect("it is valid");
    let tasks = file["tasks"].as_array().expect("a list");
    tasks.iter().find(|task| task["worker_id"] == worker).cloned().unwrap_or_default()
}

/// Of the last attempt that has one: an attempt whose server died before anything began never gets a record.
fn newest_outcome(world: &World, worker: &str) -> Option<Value> {
    let attempts = world.workers().join(worker).join("attempts");
    let mut numbers: Vec<u32> = std::fs::read_dir(&attempts)
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let records = numbers.into_iter().rev().map(|number| attempts.join(number.to_string()).join("outcome.json"));
    records.filter_map(|path| std::fs::read(path).ok()).find_map(|bytes| serde_json::from_slice(&bytes).ok())
}
