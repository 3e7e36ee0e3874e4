//! The driver's knowledge: the requested missions, its actions on them, and the answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::kind::{Kind, RACE};
use crate::world::World;

/// Actions on a mission that permit further endings.
#[derive(Debug, Default)]
pub struct Disturbed {
    pub cancelled: bool,
    pub messaged: bool,
    pub retried: bool,
    pub supervisor_killed: bool,
    pub cli_killed: bool,
    /// Its supervisor died before it had claimed the attempt.
    pub start_failed: bool,
    /// A part of the cluster died on which its job may have depended.
    pub host_failed: bool,
}

impl Disturbed {
    pub fn is_none(&self) -> bool {
        let killed = self.supervisor_killed || self.cli_killed || self.start_failed || self.host_failed;
        !(killed || self.cancelled || self.messaged || self.retried)
    }
}

#[derive(Debug)]
pub struct Mission {
    pub boss: usize,
    pub kind: Kind,
    /// Its own request, or that of the first racer.
    pub task: String,
    /// Requests that it depends on.
    pub needs: Vec<String>,
    /// Known once the creation was answered.
    pub worker: Option<String>,
    /// One of its attempts may run as a job of the cluster.
    pub on_cluster: bool,
    pub disturbed: Disturbed,
    /// A merge was requested, and may have been made.
    pub merge_asked: bool,
    /// A merge was confirmed.
    pub merged: bool,
}

impl Mission {
    pub fn may_end_as(&self, ending: &str) -> bool {
        let disturbed = &self.disturbed;
        ending == self.kind.ending()
            || match ending {
                // No automatic retry follows a cancellation, nor when the attempts are used up: an attempt may
                // have been interrupted before it began, and have completed what the message asked for instead.
                "failed" => {
                    let no_more = disturbed.cancelled || disturbed.messaged && disturbed.retried;
                    (self.kind == Kind::FailsOnce && no_more) || disturbed.start_failed || disturbed.host_failed
                }
                "cancelled" => disturbed.cancelled || self.kind.races(),
                "completed" => (disturbed.messaged || disturbed.retried) && self.kind != Kind::VerifyFails,
                "lost" => disturbed.supervisor_killed || disturbed.host_failed,
                "interrupted" => disturbed.cli_killed,
                _ => false,
            }
    }
}

/// The missions of one call.
#[derive(Debug)]
pub struct Batch {
    pub boss: usize,
    pub requests: Vec<String>,
    pub answered: bool,
}

#[derive(Default)]
pub struct Model {
    /// Missions by request.
    pub missions: BTreeMap<String, Mission>,
    pub batches: Vec<Batch>,
    /// The number of reports of each attempt without a mark.
    pub reports: BTreeMap<(String, u64), u32>,
    pub reported_blocks: BTreeSet<String>,
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
                on_cluster: false,
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

    /// Plans a race: one task for all racers.
    pub fn plan_race(&mut self, boss: usize, needs: &[String]) -> usize {
        self.plan(boss, &RACE.map(|kind| (kind, needs.to_vec())))
    }

    /// Returns the racers of the same task, including this one.
    pub fn racers(&self, request: &str) -> impl Iterator<Item = &String> {
        let task = &self.missions[request].task;
        self.missions.iter().filter(move |(_, mission)| mission.task == *task).map(|(request, _)| request)
    }

    /// Returns the arguments of the call that creates a batch.
    pub fn call(&self, batch: usize, world: &World) -> Value {
        let workers = self.batches[batch].requests.iter().map(|request| {
            let mission = &self.missions[request];
            let needs: Vec<&str> = mission.needs.iter().map(|need| &*self.missions[need].task).collect();
            let mut call = mission.kind.mission(request, &mission.task, &needs, &world.trace());
            if mission.on_cluster {
                call["run_on"] = json!("cluster");
            }
            call
        });
        let race = self.batches[batch].requests.iter().all(|request| self.missions[request].kind.races());
        json!({ "workers": workers.collect::<Vec<_>>(), "race": race })
    }

    /// Records an answer to that call, which may be a repetition. An unanswered batch exists completely or not at all.
    pub fn take_created(&mut self, batch: usize, answer: &Value) {
        let Batch { requests, answered, .. } = &mut self.batches[batch];
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), requests.len(), "{answer}");
        let existing = results.iter().filter(|result| result["existing"] == true).count();
        assert!(existing == 0 || existing == results.len(), "a part of a batch was there: {answer}");
        assert!(!*answered || existing > 0, "an answered batch was created again: {answer}");
        *answered = true;
        for (request, result) in requests.iter().zip(results) {
            let worker = result["worker_id"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned();
            let mission = self.missions.get_mut(request).expect("a requested mission");
            assert!(mission.worker.as_ref().is_none_or(|known| *known == worker), "{request} was created twice");
            mission.worker = Some(worker);
        }
    }

    /// Records the answer to a wait of this boss.
    pub fn take_wait(&mut self, boss: usize, answer: &Value) {
        for worker in answer["settled"].as_array().into_iter().flatten() {
            let (request, mission) = self.titled(worker);
            assert_eq!(mission.boss, boss, "the end of {request} was reported to another boss: {worker}");
            if worker["already_reported"] == true {
                continue;
            }
            let id = worker["worker_id"].as_str().expect("an id").to_owned();
            let attempt = worker["attempt"].as_u64().expect("a number");
            let unmarked = u32::from(worker["redelivered"] != true);
            *self.reports.entry((id, attempt)).or_default() += unmarked;
        }
        for blocked in answer["blocked"].as_array().into_iter().flatten() {
            let task = blocked["task_id"].as_str().expect("a task");
            assert_eq!(self.missions[task].boss, boss, "a block was reported to another boss: {blocked}");
            self.reported_blocks.insert(task.to_owned());
        }
    }

    fn titled(&self, worker: &Value) -> (&String, &Mission) {
        let title = worker["title"].as_str().expect("a title");
        self.missions.get_key_value(title).unwrap_or_else(|| panic!("{worker} was not requested"))
    }

    /// Returns the requests with known workers, of this boss or of all others.
    pub fn known(&self, boss: usize, own: bool) -> Vec<String> {
        let known =
            self.missions.iter().filter(|(_, mission)| mission.worker.is_some() && (mission.boss == boss) == own);
        known.map(|(request, _)| request.clone()).collect()
    }

    pub fn worker(&self, request: &str) -> &str {
        self.missions[request].worker.as_deref().expect("its worker is known")
    }

    pub fn mission(&mut self, request: &str) -> &mut Mission {
        self.missions.get_mut(request).expect("a requested mission")
    }
}
