//! What the demo's boss asks for: five missions, of which four run at once.

use serde_json::{Value, json};

use super::project::{BACKEND, Project};

/// What is to become of a mission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Completes,
    /// Its verification fails, and it completes when it is told what was wrong.
    CompletesOnRetry,
    /// It has no end of its own.
    IsCancelled,
}

pub struct Plan {
    pub task: &'static str,
    pub fate: Fate,
    mission: Value,
}

impl Plan {
    pub fn mission(&self) -> Value {
        let mut mission = self.mission.clone();
        mission["task_id"] = self.task.into();
        mission["backend"] = BACKEND.into();
        mission["timeout_minutes"] = 2.into();
        mission
    }
}

/// How many of them have to run at the same time.
pub const AT_ONCE: usize = 4;

pub fn plans(project: &Project) -> Vec<Plan> {
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
        Plan { task: "english", fate: Fate::Completes, mission: greet("english", "", 3) },
        Plan { task: "french", fate: Fate::CompletesOnRetry, mission: greet("french", " hastily", 5) },
        Plan { task: "german", fate: Fate::Completes, mission: greet("german", "", 8) },
        Plan {
            task: "more",
            fate: Fate::IsCancelled,
            mission: json!({
                "title": "Find more languages",
                "prompt": format!("Find out in which other languages one could greet.\n\n{meet}\nDEMO: search-for-ever"),
            }),
        },
        Plan {
            task: "shout",
            fate: Fate::Completes,
            mission: json!({
                "title": "Shout in english",
                "prompt": "Write the English greeting into SHOUT.txt in capital letters.\n\nDEMO: think 3\nDEMO: shout english",
                "verify_command": "grep -qx 'HELLO, WORLD!' SHOUT.txt",
                "depends_on": ["english"],
            }),
        },
    ]
}

/// What a boss writes who has read why the verification failed.
pub fn feedback(language: &str, verification: &str) -> String {
    format!(
        "The verification failed:\n{verification}\nMend it, and take your time.\n\nDEMO: think 2\nDEMO: greet {language}"
    )
}
