//! The reasons for which a job waits: their words for users, and those that never pass by themselves.

use jiff::civil::DateTime;

use crate::mission::hint::Hint;
use crate::mission::life::JobId;

/// Reasons of a job that exceeds a limit of its partition, account or quality of service.
const TIME: [&str; 3] = ["PartitionTimeLimit", "QOSMaxWallDurationPerJobLimit", "AssocMaxWallDurationPerJobLimit"];
const SIZE: [&str; 12] = [
    "PartitionConfig",
    "PartitionNodeLimit",
    "QOSMaxCpuPerJobLimit",
    "QOSMaxNodePerJobLimit",
    "QOSMaxMemoryPerJob",
    "QOSMaxGRESPerJob",
    "QOSMinCpuNotSatisfied",
    "QOSMinGRES",
    "QOSMinMemory",
    "AssocMaxCpuPerJobLimit",
    "AssocMaxNodePerJobLimit",
    "MaxMemPerLimit",
];
/// Reasons that name one setting of the launcher.
const SETTINGS: [(&str, &str); 5] = [
    ("BadConstraints", "constraint"),
    ("InvalidAccount", "account"),
    ("AccountNotAllowed", "account"),
    ("InvalidQOS", "qos"),
    ("QOSNotAllowed", "qos"),
];
const HELD_BY_USER: [&str; 1] = ["JobHeldUser"];
const HELD_BY_ADMINISTRATOR: [&str; 3] = ["JobHeldAdmin", "launch failed requeued held", "JobHoldMaxRequeue"];
/// The nodes that the job needs are down, drained or reserved.
const NODES: [&str; 1] = ["ReqNodeNotAvail"];

/// Returns what to do about a reason that does not pass by itself. `None` if the job only has to wait.
pub fn lasting(reason: &str, launcher: &str, job: JobId) -> Option<Vec<Hint>> {
    // Some reasons have details, such as `ReqNodeNotAvail, UnavailableNodes:n1`.
    let reason = reason.split([',', '(']).next().unwrap_or_default().trim();
    let is_one_of = |reasons: &[&str]| reasons.contains(&reason);
    let change = |settings: &str| Hint::to(format!("change {settings} in [launchers.{launcher}]"));
    if is_one_of(&TIME) {
        return Some(vec![Hint::to("lower the mission's `timeout_minutes`"), change("`partition` or `qos`")]);
    }
    if is_one_of(&SIZE) {
        return Some(vec![change("`partition`, `cpus`, `memory` or `gres`")]);
    }
    if is_one_of(&HELD_BY_USER) {
        return Some(vec![Hint::Run(format!("scontrol release {job}"))]);
    }
    if is_one_of(&HELD_BY_ADMINISTRATOR) {
        return Some(vec![Hint::to(format!("ask the administrators of the cluster to release job {job}"))]);
    }
    if is_one_of(&NODES) {
        return Some(vec![Hint::to("wait until the nodes are back"), change("`partition`, `constraint` or `args`")]);
    }
    let (_, setting) = SETTINGS.iter().find(|(name, _)| *name == reason)?;
    Some(vec![change(&format!("`{setting}`"))])
}

/// Returns the reason in words for users, such as `Resources (job 4711, partition cpu, likely to start at 14:20)`. `now` is
/// a time of the same clock as `start`.
pub fn describe(reason: &str, job: JobId, partition: Option<&str>, start: Option<DateTime>, now: DateTime) -> String {
    let reason = if ["", "None"].contains(&reason) { "not scheduled yet" } else { reason };
    let partition = partition.map(|partition| format!(", partition {partition}")).unwrap_or_default();
    // A start that has passed was a wrong estimate.
    let start = start.filter(|start| *start > now).map(|start| {
        let form = if start.date() == now.date() { "at %H:%M" } else { "on %Y-%m-%d at %H:%M" };
        format!(", likely to start {}", start.strftime(form))
    });
    format!("{reason} (job {job}{partition}{})", start.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::datetime;

    #[test]
    fn waiting_job_is_described() {
        let now = datetime(2026, 11, 30, 14, 0, 0, 0);
        let text = |reason, partition, start| describe(reason, JobId(4711), partition, start, now);
        let today = Some(datetime(2026, 11, 30, 14, 20, 0, 0));
        assert_eq!(
            text("Resources", Some("cpu"), today),
            "Resources (job 4711, partition cpu, likely to start at 14:20)"
        );
        let tomorrow = Some(datetime(2026, 12, 1, 9, 5, 0, 0));
        assert_eq!(text("Priority", None, tomorrow), "Priority (job 4711, likely to start on 2026-12-01 at 09:05)");
        assert_eq!(text("Priority", None, Some(now)), "Priority (job 4711)");
        assert_eq!(text("None", None, None), "not scheduled yet (job 4711)");
    }

    #[test]
    fn reason_that_never_passes_names_its_fix() {
        let words = |reason: &str| {
            let hints = lasting(reason, "cluster", JobId(7))?;
            Some(hints.iter().map(Hint::words).collect::<Vec<_>>().join(", or "))
        };
        for (reason, said) in [
            ("PartitionTimeLimit", "lower the mission's `timeout_minutes`, or change `partition` or `qos`"),
            ("AssocMaxWallDurationPerJobLimit", "`timeout_minutes`"),
            ("PartitionConfig", "change `partition`, `cpus`, `memory` or `gres` in [launchers.cluster]"),
            ("PartitionNodeLimit", "`partition`"),
            ("BadConstraints", "change `constraint` in [launchers.cluster]"),
            ("InvalidAccount", "`account`"),
            ("InvalidQOS", "`qos`"),
            ("JobHeldUser", "run `scontrol release 7`"),
            ("JobHeldAdmin", "release job 7"),
            ("launch failed requeued held", "release job 7"),
            ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "wait until the nodes are back"),
            ("ReqNodeNotAvail(Unavailable:n1)", "wait until the nodes are back"),
        ] {
            assert!(words(reason).is_some_and(|words| words.contains(said)), "{reason}: {:?}", words(reason));
        }
        for reason in
            ["Resources", "Priority", "None", "", "Dependency", "BeginTime", "QOSMaxJobsPerUserLimit", "Licenses"]
        {
            assert_eq!(words(reason), None, "{reason}");
        }
    }
}
