//! The demo's five missions, of which four run at once.

use serde_json::{Value, json};

use super::project::{BACKEND, Project};

/// The expected outcome of a mission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedResult {
    Completes,
    /// Its verification fails, and the retry with feedback completes.
    CompletesOnRetry,
    /// It never ends by itself.
    IsCancelled,
}

pub struct PlannedMission {
    pub task: &'static str,
    pub expected: ExpectedResult,
    mission: Value,
}

impl PlannedMission {
    pub fn mission(&self) -> Value {
        let mut mission = self.mission.clone();
        mission["task_id"] = self.task.into();
        mission["backend"] = BACKEND.into();
        mission["timeout_minutes"] = 2.into();
        mission
    }
}

/// Number of missions that have to run at the same time.
pub const AT_ONCE: usize = 4;

pub fn plans(project: &Project) -> Vec<PlannedMission> {
    let meet = format!("DEMO: meet {AT_ONCE} {}", project.meeting.display());
    let greet = |language: &str, how: &str, steps: u32| {
        json!({
            "title": format!("Greet in {language}"),
            "prompt": format!(
                "Write the greeting in {language} into greetings.txt, as dictionary.txt has it.\n\n{meet}\nDEMO: think {steps}\nDEMO: greet {language}{how}"
            ),
            "verify_command": format!("sh check.sh {language}"),
        })
    };
    vec![
        PlannedMission { task: "english", expected: ExpectedResult::Completes, mission: greet("english", "", 3) },
        PlannedMission {
            task: "french",
            expected: ExpectedResult::CompletesOnRetry,
            mission: greet("french", " hastily", 5),
        },
        PlannedMission { task: "german", expected: ExpectedResult::Completes, mission: greet("german", "", 8) },
        PlannedMission {
            task: "more",
            expected: ExpectedResult::IsCancelled,
            mission: json!({
                "title": "Find more languages",
                "prompt": format!("Find out in which other languages one could greet.\n\n{meet}\nDEMO: search-for-ever"),
            }),
        },
        PlannedMission {
            task: "shout",
            expected: ExpectedResult::Completes,
            mission: json!({
                "title": "Shout in english",
                "prompt": "Write the English greeting into SHOUT.txt in capital letters.\n\nDEMO: think 3\nDEMO: shout english",
                "verify_command": "grep -qx 'HELLO, WORLD!' SHOUT.txt",
                "depends_on": ["english"],
            }),
        },
    ]
}

/// Returns the boss's feedback on a failed verification.
pub fn feedback(language: &str, verification: &str) -> String {
    format!(
        "The verification failed:\n{verification}\nFix it, and take your time.\n\nDEMO: think 2\nDEMO: greet {language}"
    )
}
