//! What the driver knows: which missions it asked for, what it did to them, and what it was told.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::kind::{Kind, RACE};
use crate::world::World;

/// What was done to a mission beyond asking for it: then more endings are true.
#[derive(Debug, Default)]
pub struct Disturbed {
    pub cancelled: bool,
    pub messaged: bool,
    pub retried: bool,
    pub supervisor_killed: bool,
    pub cli_killed: bool,
    /// Its supervisor died before the attempt was its own.
    pub start_failed: bool,
}

impl Disturbed {
    pub fn is_not(&self) -> bool {
        let killed = self.supervisor_killed || self.cli_killed || self.start_failed;
        !(killed || self.cancelled || self.messaged || self.retried)
    }
}

#[derive(Debug)]
pub struct Mission {
    pub boss: usize,
    pub kind: Kind,
    /// Its own request, or that of the first of its race.
    pub task: String,
    /// Requests that it depends on.
    pub needs: Vec<String>,
    /// Known once a creation was answered.
    pub worker: Option<String>,
    pub disturbed: Disturbed,
    /// A merge of it was asked for, and may have been made.
    pub merge_asked: bool,
    /// And was answered as made.
    pub merged: bool,
}

impl Mission {
    pub fn may_end_as(&self, ending: &str) -> bool {
        let disturbed = &self.disturbed;
        ending == self.kind.ending()
            || match ending {
                // An automatic retry does not follow once it was called off, nor when the attempts are used up: one may
                // have been interrupted before it began, and have completed what the message asked for instead.
                "failed" => {
                    let no_more = disturbed.cancelled || disturbed.messaged && disturbed.retried;
                    (self.kind == Kind::FailsOnce && no_more) || disturbed.start_failed
                }
                "cancelled" => disturbed.cancelled || self.kind.races(),
                "completed" => (disturbed.messaged || disturbed.retried) && self.kind != Kind::VerifyFails,
                "lost" => disturbed.supervisor_killed,
                "interrupted" => disturbed.cli_killed,
                _ => false,
            }
    }
}

/// Asked for by one call.
#[derive(Debug)]
pub struct Batch {
    pub boss: usize,
    pub requests: Vec<String>,
    pub answered: bool,
}

#[derive(Default)]
pub struct Model {
    /// By request.
    pub missions: BTreeMap<String, Mission>,
    pub batches: Vec<Batch>,
    /// How often each attempt was told without a mark.
    pub told: BTreeMap<(String, u64), u32>,
    pub told_blocked: BTreeSet<String>,
}

impl Model {
    pub fn plan(&mut self, boss: usize, kinds: &[(Kind, Vec<String>)]) -> usize {
        let first = format!("r{}", self.missions.len());
        let requests = kinds.iter().map(|(kind, needs)| {
            let request = format!("r{}", self.missions.len());
            let task = if kind.races() { first.clone() } else { request.clone() };
            let mission = Mission {
                boss,
                kind: *kind,
                task,
                needs: needs.clone(),
                worker: None,
                disturbed: Disturbed::default(),
                merge_asked: false,
                merged: false,
            };
            self.missions.insert(request.clone(), mission);
            request
        });
        let requests = requests.collect();
        self.batches.push(Batch { boss, requests, answered: false });
        self.batches.len() - 1
    }

    /// One task for all of them.
    pub fn plan_race(&mut self, boss: usize, needs: &[String]) -> usize {
        self.plan(boss, &RACE.map(|kind| (kind, needs.to_vec())))
    }

    /// Those that do the same task, itself among them.
    pub fn racers(&self, request: &str) -> impl Iterator<Item = &String> {
        let task = &self.missions[request].task;
        self.missions.iter().filter(move |(_, mission)| mission.task == *task).map(|(request, _)| request)
    }

    /// The call that asks for a batch.
    pub fn call(&self, batch: usize, world: &World) -> Value {
        let workers = self.batches[batch].requests.iter().map(|request| {
            let mission = &self.missions[request];
            let needs: Vec<&str> = mission.needs.iter().map(|need| &*self.missions[need].task).collect();
            mission.kind.mission(request, &mission.task, &needs, &world.trace())
        });
        let race = self.batches[batch].requests.iter().all(|request| self.missions[request].kind.races());
        json!({ "workers": workers.collect::<Vec<_>>(), "race": race })
    }

    /// An answer to that call, maybe not the first. What was not answered before is there whole or not at all.
    pub fn take_created(&mut self, batch: usize, answer: &Value) {
        let Batch { requests, answered, .. } = &mut self.batches[batch];
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), requests.len(), "{answer}");
        let existing = results.iter().filter(|result| result["existing"] == true).count();
        assert!(existing == 0 || existing == results.len(), "a part of a batch was there: {answer}");
        assert!(!*answered || existing > 0, "an answered batch was made once more: {answer}");
        *answered = true;
        for (request, result) in requests.iter().zip(results) {
            let worker = result["worker_id"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned();
            let mission = self.missions.get_mut(request).expect("we asked for it");
            assert!(mission.worker.as_ref().is_none_or(|known| *known == worker), "{request} was spawned twice");
            mission.worker = Some(worker);
        }
    }

    /// What a wait of this boss says.
    pub fn take_wait(&mut self, boss: usize, answer: &Value) {
        for worker in answer["settled"].as_array().into_iter().flatten() {
            let (request, mission) = self.titled(worker);
            assert_eq!(mission.boss, boss, "the end of {request} was told to another boss: {worker}");
            if worker["already_reported"] == true {
                continue;
            }
            let id = worker["worker_id"].as_str().expect("an id").to_owned();
            let attempt = worker["attempt"].as_u64().expect("a number");
            let unmarked = u32::from(worker["redelivered"] != true);
            *self.told.entry((id, attempt)).or_default() += unmarked;
        }
        for blocked in answer["blocked"].as_array().into_iter().flatten() {
            let task = blocked["task_id"].as_str().expect("a task");
            assert_eq!(self.missions[task].boss, boss, "a block was told to another boss: {blocked}");
            self.told_blocked.insert(task.to_owned());
        }
    }

    fn titled(&self, worker: &Value) -> (&String, &Mission) {
        let title = worker["title"].as_str().expect("a title");
        self.missions.get_key_value(title).unwrap_or_else(|| panic!("nobody asked for {worker}"))
    }

    /// Requests whose workers are known, of this boss or of all others.
    pub fn known(&self, boss: usize, own: bool) -> Vec<String> {
        let known =
            self.missions.iter().filter(|(_, mission)| mission.worker.is_some() && (mission.boss == boss) == own);
        known.map(|(request, _)| request.clone()).collect()
    }

    pub fn worker(&self, request: &str) -> &str {
        self.missions[request].worker.as_deref().expect("its worker is known")
    }

    pub fn mission(&mut self, request: &str) -> &mut Mission {
        self.missions.get_mut(request).expect("we asked for it")
    }
}
