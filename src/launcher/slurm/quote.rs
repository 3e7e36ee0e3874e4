//! Quotes for the words of a shell script.

/// Quotes a word for every POSIX shell.
pub fn for_sh(word: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Quotes a word for bash, with escapes in place of control characters: `sbatch` refuses a script with a carriage
/// return.
pub fn for_bash(word: &[u8]) -> Vec<u8> {
    if !word.iter().any(u8::is_ascii_control) {
        return for_sh(word);
    }
    let mut quoted = b"$'".to_vec();
    for &byte in word {
        match byte {
            b'\'' | b'\\' => quoted.extend([b'\\', byte]),
            byte if byte.is_ascii_control() => quoted.extend(format!("\\{byte:03o}").into_bytes()),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::{Command, Stdio};

    /// Returns the word that a shell passes to a program.
    fn read_by(shell: &str, quoted: &[u8]) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        let script = [b"printf %s ", quoted].concat();
        let command =
            Command::new(shell).arg("-c").arg(std::ffi::OsStr::from_bytes(&script)).stdin(Stdio::null()).output();
        command.unwrap().stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn shell_reads_every_word_as_it_was(word in proptest::collection::vec(1_u8.., 0..40)) {
            prop_assert_eq!(read_by("sh", &for_sh(&word)), word.clone());
            prop_assert_eq!(read_by("bash", &for_bash(&word)), word.clone());
            prop_assert!(!for_bash(&word).iter().any(u8::is_ascii_control));
        }
    }
}
