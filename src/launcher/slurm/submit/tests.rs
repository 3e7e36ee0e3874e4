use uuid::Uuid;

use super::super::testing::Fakes;
use super::*;
use crate::config::Settings;
use crate::mission::hint::with_hints;

const NAME: &str = "ob-000000000000-w-1-fix-2";

fn settings(text: &str) -> LauncherSettings {
    let settings = Settings::parse(&format!("[launchers.cluster]\nkind = 'slurm'\n{text}")).unwrap();
    settings.launchers["cluster"].clone()
}

/// Submits with these settings in these folders, and returns the result.
async fn submit_to(engine: &Engine, settings: &LauncherSettings, folder: &Path, may_exist: bool) -> Submission {
    let request = JobRequest {
        names: &JobNames::of(Uuid::nil()),
        worker: &WorkerId::new(1, "fix"),
        attempt: 2,
        folder,
        program: Path::new("/opt/it's here/orchestrator-boss"),
        launcher: "cluster",
        settings,
        minutes: 165,
    };
    submit(engine, &request, may_exist).await
}

async fn submitted(fakes: &Fakes, may_exist: bool) -> Submission {
    submit_to(&fakes.engine(&[], &[]), &settings(""), Path::new("/state/a"), may_exist).await
}

/// Returns the result of an `sbatch` that fails with this text.
async fn refused_with(text: &str) -> Submission {
    let fakes = Fakes::new().add("sbatch", &format!("cat <<'EOF' >&2\n{text}\nEOF\nexit 1"));
    submitted(&fakes, false).await
}

#[tokio::test]
async fn request_has_every_setting() {
    let fakes = Fakes::new()
        .add("sbatch", "for word; do printf '%s\\n' \"$word\"; done > $here/args; cat > $here/script; echo 4711");
    let settings = settings(
        "partition = 'cpu'\naccount = 'lab'\nqos = 'low'\nconstraint = 'a&b'\ngres = 'gpu:1'\ncpus = 4\nmemory = '8G'\n\
         args = ['--exclude=n13', '--comment=a b']\nprologue = [\"module load nodejs/22\\r\\necho 'x'\", '']",
    );
    let folder = Path::new("/state/a b/it's\n%j\\\r\n");
    let result = submit_to(&fakes.engine(&[], &[]), &settings, folder, false).await;
    assert!(matches!(result, Submission::Accepted(JobId(4711))), "{result:?}");
    let expected = format!(
        "--parsable\n--job-name={NAME}\n--no-requeue\n--export=ALL\n--open-mode=append\n\
         --signal=B:TERM@120\n--time=165\n--output={}/engine.log\n--chdir={}\n--partition=cpu\n--account=lab\n--qos=low\n--constraint=a&b\n\
         --gres=gpu:1\n--cpus-per-task=4\n--mem=8G\n--exclude=n13\n--comment=a b\n",
        folder.display().to_string().replace('\\', "\\\\"),
        folder.display()
    );
    assert_eq!(fakes.read("args"), expected);
    assert_eq!(
        fakes.read("script"),
        "#!/bin/bash\nmodule load nodejs/22\necho 'x'\n\
         exec '/opt/it'\\''s here/orchestrator-boss' supervise --job $'/state/a b/it\\'s\\012%j\\\\\\015\\012'\n"
    );
}

#[test]
fn path_of_the_log_keeps_its_characters() {
    for (path, pattern) in
        [("/a b/c", "/a b/c"), ("/p%j/100%", "/p%%j/100%%"), (r"/b\x", r"/b\\x"), (r"/b\\%j", r"/b\\\\%j")]
    {
        assert_eq!(file_pattern(Path::new(path)), pattern);
    }
}

#[test]
fn number_of_the_job_is_read() {
    for (printed, job) in [
        ("4711\n", Some(4711)),
        ("4711;cluster\n", Some(4711)),
        ("Welcome to the cluster\n\n 4711 \n\n", Some(4711)),
        ("", None),
        ("\n", None),
        ("0\n", None),
        ("-1\n", None),
        ("+1\n", None),
        ("Submitted batch job 4711\n", None),
        ("4711 done\n", None),
        ("99999999999999999999\n", None),
        (";cluster\n", None),
    ] {
        assert_eq!(job_number(printed), job.map(JobId), "{printed}");
    }
}

#[tokio::test]
async fn earlier_job_is_found_instead_of_a_second() {
    let sbatch = "touch $here/submitted; echo 9";
    for (state, is_found) in [("PENDING", true), ("RUNNING", true), ("FAILED", true), ("", false)] {
        let line = if state.is_empty() { String::new() } else { format!("7|{NAME}|{state}|None||N/A\\n") };
        let squeue = format!("printf '%s\\n' \"$*\" > $here/asked; printf '6|{NAME}0|RUNNING|None||N/A\\n{line}'");
        let fakes = Fakes::new().add("sbatch", sbatch).add("squeue", &squeue);
        let result = submitted(&fakes, true).await;
        assert!(fakes.read("asked").contains(&format!("--name={NAME}")), "{}", fakes.read("asked"));
        match result {
            Submission::Found(JobId(7)) => assert!(is_found),
            Submission::Accepted(JobId(9)) => assert!(!is_found),
            other => panic!("{state}: {other:?}"),
        }
        assert_eq!(fakes.path().join("submitted").exists(), !is_found, "{state}");
    }
    let fakes =
        Fakes::new().add("sbatch", sbatch).add("squeue", "echo 'slurm_load_jobs error: Unexpected' >&2; exit 1");
    let result = submitted(&fakes, true).await;
    assert!(matches!(&result, Submission::Later(why) if why.contains("Unexpected")), "{result:?}");
    assert!(!fakes.path().join("submitted").exists(), "an unanswered question is no answer");
}

#[tokio::test]
async fn answer_without_a_number_is_looked_up() {
    for printed in ["echo garbage", ":", "printf 'a\\0b\\377'"] {
        let found = format!("echo '7|{NAME}|PENDING|Priority||N/A'");
        let fakes = Fakes::new().add("sbatch", printed).add("squeue", &found);
        let result = submitted(&fakes, false).await;
        assert!(matches!(result, Submission::Accepted(JobId(7))), "{result:?}");

        let fakes = Fakes::new().add("sbatch", printed).add("squeue", ":");
        let result = submitted(&fakes, false).await;
        assert!(matches!(result, Submission::Refused(SubmitError::Unreadable { .. })), "{result:?}");

        let fakes = Fakes::new().add("sbatch", printed).add("squeue", "echo 'Socket timed out' >&2; exit 1");
        let result = submitted(&fakes, false).await;
        assert!(matches!(result, Submission::Later(_)), "{result:?}");
    }
    let fakes = Fakes::new().add("sbatch", "head -c 10485760 /dev/zero; echo 5");
    let result = submitted(&fakes, false).await;
    assert!(matches!(&result, Submission::Later(why) if why.contains("more than 4 MiB")), "{result:?}");
}

#[tokio::test]
async fn passing_refusal_is_tried_again() {
    for text in [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates \
         accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: AssocGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: Job violates \
         accounting/QOS policy (job submit limit, user's size and/or time limits)",
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size \
         and/or time limits)",
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
    ] {
        let result = refused_with(text).await;
        assert!(matches!(result, Submission::Later(_)), "{text}: {result:?}");
    }
}

#[tokio::test]
async fn final_refusal_names_the_setting() {
    for (text, said) in [
        ("invalid partition specified: nope", "change `partition` in [launchers.cluster]"),
        (
            "Memory specification can not be satisfied\nBatch job submission failed: Requested node configuration is not available",
            "change `memory`",
        ),
        ("Batch job submission failed: Requested node configuration is not available", "change `cpus` or `memory`"),
        ("Batch job submission failed: Invalid feature specification", "change `constraint`"),
        ("Invalid generic resource (gres) specification", "change `gres`"),
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            "change `account` or `partition`",
        ),
        ("Batch job submission failed: Invalid qos specification", "change `qos`"),
        (
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            "lower the mission's `timeout_minutes`",
        ),
        (
            "QOSMaxCpuPerUserLimit\nBatch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "change `qos`",
        ),
        ("unrecognized option '--badopt'\nTry \"sbatch --help\" for more information", "change `args`"),
        ("fatal: Could not establish a configuration source", "set SLURM_CONF"),
        ("something new", "cannot submit the job: something new"),
    ] {
        match refused_with(text).await {
            Submission::Refused(error) => {
                let shown = with_hints(&error);
                assert!(shown.starts_with("cannot submit the job: ") && shown.contains(said), "{text}: {shown}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn missing_command_and_configuration_are_final() {
    let fakes = Fakes::new();
    let path = fakes.path().display().to_string();
    let engine = Engine::in_environment(&[], [("PATH".into(), path.into())]);
    let result = submit_to(&engine, &settings(""), Path::new("/state/a"), false).await;
    let Submission::Refused(error) = result else { panic!("{result:?}") };
    assert!(with_hints(&error).contains("sbatch is not on the PATH; install the commands of Slurm"), "{error}");

    let text = "s_p_parse_file: cannot stat file /nowhere: No such file or directory, retrying in 1sec up to 60sec";
    let fakes = Fakes::new().add("sbatch", &format!("echo 'sbatch: error: {text}' >&2; sleep 60"));
    let result = submitted(&fakes, false).await;
    let Submission::Refused(error) = result else { panic!("{result:?}") };
    assert!(with_hints(&error).contains("set SLURM_CONF"), "{error}");
}
