use std::collections::BTreeSet;
use std::time::Instant;

use super::super::testing::Fakes;
use super::*;

/// Variables of a boss that runs in a job, with keys.
const OF_A_JOB: [(&str, &str); 8] = [
    ("SLURM_JOB_ID", "17"),
    ("SBATCH_PARTITION", "gpu"),
    ("SLURM_CONF", "/etc/slurm.conf"),
    ("SQUEUE_FORMAT", "%i"),
    ("ANTHROPIC_API_KEY", "planted"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("SSH_AUTH_SOCK", "/run/agent"),
];

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn output(answer: Answer) -> String {
    answer.output().unwrap_or_else(|why| panic!("{why}"))
}

fn cause(answer: Answer) -> NoAnswer {
    match answer {
        Answer::None { cause } => cause,
        other => panic!("{other:?}"),
    }
}

/// Returns the names of the variables that a command printed, without those that a shell sets itself.
fn variables(printed: &str) -> BTreeSet<&str> {
    let names = printed.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name));
    names.filter(|name| !["PWD", "SHLVL", "OLDPWD", "_", "here"].contains(name)).collect()
}

fn is_alive(pid: &str) -> bool {
    pid.trim().parse().ok().and_then(crate::process::Identity::of).is_some_and(|process| process.is_alive())
}

async fn until_gone(pid: &str) {
    let began = Instant::now();
    // A killed process takes a moment to disappear.
    while is_alive(pid) {
        assert!(began.elapsed() < Duration::from_secs(60), "{pid} still runs");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn command_gets_only_its_own_environment() {
    let fakes = Fakes::new().add("squeue", "env");
    let printed = output(fakes.engine(&[], &OF_A_JOB).ask("squeue", &[]).await);
    let expected = ["HOME", "LC_ALL", "PATH", "SLURM_CONF", "TZ"];
    assert_eq!(variables(&printed), expected.into());
}

#[tokio::test]
async fn command_behind_a_prefix_gets_the_same() {
    let odd = ["a b", "c'd", "$HOME", "e\nf", "|", "*", ""];
    let script = "env; for word; do printf '<%s>' \"$word\"; done; printf 'read:'; cat";
    // As `ssh`, which gives its arguments to a shell, in an environment of its own with a key in it.
    let far = "shift; exec env -i HOME=/far PATH=\"$PATH\" LANG=C ANTHROPIC_API_KEY=planted sh -c \"$*\"";
    let fakes = Fakes::new().add("sbatch", script).add("ssh", far).add("plain", "exec \"$@\"");
    for prefix in [&["ssh", "login1"][..], &["plain"]] {
        let engine = fakes.engine(prefix, &OF_A_JOB);
        let printed = output(engine.submit("sbatch", &words(&odd), b"#!/bin/bash\necho 'it''s' %s \\n\n").await);
        let wanted = "<a b><c'd><$HOME><e\nf><|><*><>read:#!/bin/bash\necho 'it''s' %s \\n\n";
        assert!(printed.ends_with(wanted), "{printed}");
        let names = variables(printed.split_once('<').unwrap().0);
        let expected: &[&str] = if prefix[0] == "ssh" {
            &["HOME", "LANG", "PATH"]
        } else {
            &["HOME", "LC_ALL", "PATH", "SLURM_CONF", "TZ"]
        };
        assert_eq!(names, expected.iter().copied().collect());
    }
    let fakes = Fakes::new().add("plain", "env >&2; exit 3");
    let answer = fakes.engine(&["plain"], &OF_A_JOB).ask("sbatch", &[]).await;
    let Answer::Refused { exit: 3, text } = answer else { panic!("{answer:?}") };
    assert!(text.contains("SSH_AUTH_SOCK=/run/agent") && !text.contains("planted"), "{text}");
}

#[tokio::test]
async fn error_is_a_refusal_with_its_text() {
    let script =
        "echo out; printf 'sbatch: error: no\\n\\nsbatch: error: Batch job failed: yes\\nTry: it\\n' >&2; exit 1";
    let fakes = Fakes::new().add("sbatch", script).add("squeue", "echo only here; exit 2").add("scancel", "kill -9 $$");
    let engine = fakes.engine(&[], &[]);
    let text = "no; Batch job failed: yes; Try: it".to_owned();
    assert_eq!(engine.ask("sbatch", &[]).await, Answer::Refused { exit: 1, text });
    let text = "only here".to_owned();
    assert_eq!(engine.ask("squeue", &[]).await, Answer::Refused { exit: 2, text });
    assert_eq!(cause(engine.ask("scancel", &[]).await).to_string(), "scancel: a signal ended it");
    let missing = cause(engine.ask("sinfo-of-no-cluster", &[]).await);
    assert_eq!(missing.to_string(), "sinfo-of-no-cluster is not on the PATH");
    let missing = cause(fakes.engine(&["no-such-ssh", "x"], &[]).ask("squeue", &[]).await);
    assert_eq!(missing.to_string(), "no-such-ssh is not on the PATH");
}

#[tokio::test]
async fn refusal_behind_a_prefix_is_not_one_of_ssh() {
    let fakes =
        Fakes::new().add("sbatch", "echo \"unrecognized option '--x'\" >&2; exit 255").add("ssh", "exec \"$@\"");
    let text = "unrecognized option '--x'".to_owned();
    let direct = fakes.engine(&[], &[]).ask("sbatch", &[]).await;
    assert_eq!(direct, Answer::Refused { exit: 255, text: text.clone() });
    let through = fakes.engine(&["ssh"], &[]).ask("sbatch", &[]).await;
    assert_eq!(through, Answer::Refused { exit: 1, text });
}

#[tokio::test]
async fn lost_contact_is_no_answer() {
    let failed = |why: &str| format!("Batch job submission failed: {why}");
    for text in [
        failed("Unable to contact slurm controller (connect failure)"),
        failed("Zero Bytes were transmitted or received"),
        // The controller died while the request was sent.
        format!(
            "slurm_msg_sendto: address:port=127.0.0.1:6817 msg_type=4003: Unexpected missing socket error; {}",
            failed("Unexpected missing socket error")
        ),
        failed("Unexpected missing socket error"),
    ] {
        let fakes = Fakes::new().add("sbatch", &format!("echo 'sbatch: error: {text}' >&2; exit 1"));
        let none = cause(fakes.engine(&[], &[]).ask("sbatch", &[]).await);
        assert_eq!(none.to_string(), format!("sbatch: {text}"));
    }
    let fakes = Fakes::new()
        .add("ssh", "echo 'ssh: connect to host login1 port 22: No route to host' >&2; exit 255")
        .add("plain", "exec \"$@\"");
    let none = cause(fakes.engine(&["ssh", "login1"], &[]).ask("squeue", &[]).await);
    assert_eq!(none.to_string(), "squeue: ssh: connect to host login1 port 22: No route to host");
    let none = cause(fakes.engine(&["plain"], &[]).ask("sinfo-of-no-cluster", &[]).await);
    assert_eq!(none, NoAnswer::NotFound { program: "sinfo-of-no-cluster".to_owned() });
}

#[tokio::test]
async fn hanging_command_is_ended_with_its_child() {
    let script = "echo waiting >&2; sleep 600 & echo $! > $here/child; echo $$ > $here/own; wait";
    let fakes = Fakes::new().add("sbatch", script);
    let began = Instant::now();
    let none = cause(fakes.engine(&[], &[]).ask("sbatch", &[]).await);
    assert_eq!(none.to_string(), "sbatch: no answer in 4 s (waiting)");
    assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT + Duration::from_secs(30));
    for file in ["own", "child"] {
        let pid = fakes.read(file);
        assert!(!pid.is_empty());
        until_gone(&pid).await;
    }
}

#[tokio::test]
async fn dropped_call_ends_its_command() {
    let fakes = Fakes::new().add("squeue", "echo $$ > $here/new; mv $here/new $here/own; sleep 600");
    let engine = fakes.engine(&[], &[]);
    {
        let mut asking = pin!(engine.ask("squeue", &[]));
        let started = async {
            while fakes.read("own").is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = &mut asking => panic!("{answer:?}"),
            () = started => {}
        }
    }
    until_gone(&fakes.read("own")).await;
    assert_eq!(engine.commands.available_permits(), AT_ONCE);
}

#[tokio::test]
async fn background_child_delays_no_answer_and_is_ended() {
    let fakes = Fakes::new().add("squeue", "sleep 600 & echo $! > $here/child; echo done");
    let began = Instant::now();
    assert_eq!(output(fakes.engine(&[], &[]).ask("squeue", &[]).await), "done\n");
    assert!(began.elapsed() < LIMIT, "it waited for the child");
    until_gone(&fakes.read("child")).await;
}

/// A process of its own session is not ended: it may be the shared connection of `ssh`.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_a_complete_answer_counts() {
    let script = "rm -f $here/child; setsid sh -c 'echo $$ > $0/child; exec sleep 600' $here & echo beginning; \
                  until [ -s $here/child ]; do sleep 0.01; done";
    let fakes = Fakes::new().add("squeue", script).add("sbatch", &format!("({script}) > $here/out; echo done"));
    let engine = fakes.engine(&[], &[]);
    let none = cause(engine.ask("squeue", &[]).await);
    assert_eq!(none.to_string(), "squeue: no answer in 4 s");
    end(&fakes.read("child")).await;
    // It holds only the error output open.
    let began = Instant::now();
    assert_eq!(output(engine.ask("sbatch", &[]).await), "done\n");
    assert!(began.elapsed() < LIMIT, "it waited for the child");
    end(&fakes.read("child")).await;
}

#[cfg(target_os = "linux")]
async fn end(pid: &str) {
    let process = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(process, Signal::KILL).unwrap();
    until_gone(pid).await;
}

#[tokio::test]
async fn only_an_answer_of_a_sane_size_is_read() {
    let fakes = Fakes::new()
        .add("sbatch", "head -c 10485760 /dev/zero")
        .add("squeue", "head -c 4194304 /dev/zero | tr '\\0' x")
        .add("scancel", "head -c 10485760 /dev/zero | tr '\\0' x >&2; exit 1");
    let engine = fakes.engine(&[], &[]);
    let none = cause(engine.ask("sbatch", &[]).await);
    assert_eq!(none.to_string(), "sbatch: its answer has more than 4 MiB");
    assert_eq!(output(engine.ask("squeue", &[]).await).len(), MAX_OUTPUT);
    let Answer::Refused { text, .. } = engine.ask("scancel", &[]).await else { panic!("it failed") };
    assert_eq!(text.len(), ERRORS_SHOWN);
}

#[tokio::test]
async fn unread_input_is_no_failure() {
    let fakes = Fakes::new().add("sbatch", "echo 1");
    let input = vec![b'x'; 1 << 20];
    assert_eq!(output(fakes.engine(&[], &[]).submit("sbatch", &[], &input).await), "1\n");
}

/// Each fake waits for the file `go` and then counts how many others run.
#[tokio::test]
async fn at_most_two_commands_run_and_one_submission() {
    let script =
        "touch $here/at.$$; until [ -e $here/go ]; do sleep 0.01; done; ls $here | grep -c '^at\\.'; rm $here/at.$$";
    let fakes = Fakes::new().add("sbatch", script).add("scancel", "echo cancelled");
    let engine = fakes.engine(&[], &[]);
    let submissions = futures_util::future::join_all((0..4).map(|_| engine.submit("sbatch", &[], b"")));
    let cancelled = async {
        while !std::fs::read_dir(fakes.path())
            .unwrap()
            .flatten()
            .any(|it| it.file_name().as_bytes().starts_with(b"at."))
        {
            sleep(Duration::from_millis(5)).await;
        }
        // Four submissions wait or run.
        let answer = engine.ask("scancel", &[]).await;
        std::fs::write(fakes.path().join("go"), "").unwrap();
        answer
    };
    let (submitted, cancelled) = tokio::join!(submissions, cancelled);
    assert_eq!(output(cancelled), "cancelled\n");
    for answer in submitted {
        assert_eq!(output(answer), "1\n");
    }
    let engine = fakes.engine(&[], &[]);
    let commands = futures_util::future::join_all((0..6).map(|_| engine.ask("sbatch", &[]))).await;
    for answer in commands {
        let at_once: usize = output(answer).trim().parse().unwrap();
        assert!((1..=AT_ONCE).contains(&at_once), "{at_once}");
    }
}
