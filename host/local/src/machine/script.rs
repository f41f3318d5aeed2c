//! The commands of user data as one shell script, as cloud-init runs them: a command that fails does not stop the next. Which one failed is taken note of.

use std::path::Path;

/// What the script says about commands that failed: a line each, `<number> <exit code>`.
pub(super) fn traced(commands: &[String], report: &Path) -> String {
    let report = report.display();
    let mut out = format!(
        "#!/bin/sh\ncapstan_noted() {{\n  capstan_code=$?\n  [ \"$capstan_code\" -eq 0 ] || echo \"$1 $capstan_code\" >>{report}\n  \
         return \"$capstan_code\"\n}}\n"
    );
    for (at, command) in commands.iter().enumerate() {
        out.push_str(command);
        out.push_str(&format!("\ncapstan_noted {at}\n"));
    }
    out
}

/// The script without any of that, for commands that are only complete together.
pub(super) fn plain(commands: &[String]) -> String {
    format!("#!/bin/sh\n{}\n", commands.join("\n"))
}

/// The first commands' numbers and exit codes in a report.
pub(super) fn failures(report: &str) -> Vec<(usize, i32)> {
    report
        .lines()
        .filter_map(|line| {
            let (at, code) = line.split_once(' ')?;
            Some((at.parse().ok()?, code.parse().ok()?))
        })
        .collect()
}

/// The first words of a command: enough to recognise it, too little to leak what follows.
pub(super) fn first_words(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().take(3).collect();
    let shown = words.join(" ");
    if shown.len() < command.trim().len() {
        format!("{shown} ...")
    } else {
        shown
    }
}

/// The line of some output that says best why it failed.
pub(super) fn complaint<'a>(lines: impl DoubleEndedIterator<Item = &'a str> + Clone) -> &'a str {
    let tells = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.contains("error") || line.contains("failed") || line.contains("cannot")
    };
    // kubeadm's last line is advice about its own verbosity.
    let is_advice = |line: &&str| line.starts_with("To see the stack trace");
    lines
        .clone()
        .rev()
        .filter(|line| !is_advice(line))
        .find(tells)
        .or_else(|| lines.rev().find(|line| !line.trim().is_empty()))
        .unwrap_or_default()
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn commands(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_failing_command_is_noted_and_the_next_one_runs() {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report");
        let commands = commands(&["true", "false && echo never", "echo $?", "x=5", "(exit $x)"]);
        let script = dir.path().join("script");
        std::fs::write(&script, traced(&commands, &report)).unwrap();
        let output = Command::new("sh").arg(&script).output().unwrap();
        // The next command still sees the exit code of the one before it, and variables.
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n");
        assert_eq!(output.status.code(), Some(5));
        let report = std::fs::read_to_string(&report).unwrap();
        assert_eq!(failures(&report), [(1, 1), (4, 5)]);
    }

    #[test]
    fn shows_little_of_a_command_and_the_telling_line_of_its_output() {
        assert_eq!(
            first_words("kubeadm join --token abc.def"),
            "kubeadm join --token ..."
        );
        assert_eq!(first_words("date"), "date");
        let output = [
            "[preflight] Running pre-flight checks",
            "error: the port is in use",
            "",
            "To see the stack trace of this error execute with --v=5 or higher",
        ];
        assert_eq!(complaint(output.into_iter()), "error: the port is in use");
        assert_eq!(complaint(["a", ""].into_iter()), "a");
        assert_eq!(complaint([].into_iter()), "");
    }
}
