//! Runs a command inside a machine, for people who want to look.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::cloud::backend::ExecOutput;
use crate::machine::tool;
use crate::machine::units;

/// How much of each output is kept; the rest is thrown away.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// How long a command may take: a frozen machine would hold it for ever.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs a command with the environment of a machine's root, in all of the machine's namespaces.
pub(super) async fn run(pid: u32, argv: &[String]) -> io::Result<ExecOutput> {
    if argv.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "there is no command to run",
        ));
    }
    let mut child = Command::new("nsenter")
        .args(["--target", &pid.to_string()])
        .args([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
        ])
        .args(["env", "-i", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8"])
        .arg(format!("PATH={}", units::PATH))
        .arg("KUBECONFIG=/etc/kubernetes/admin.conf")
        .args(argv)
        .env("PATH", tool::path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async {
        let (stdout, stderr, status) = tokio::join!(bounded(stdout), bounded(stderr), child.wait());
        let status = status?;
        let code = status
            .code()
            .or_else(|| status.signal()?.checked_add(128))
            .unwrap_or(-1);
        Ok(ExecOutput {
            code,
            stdout: stdout?,
            stderr: stderr?,
        })
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the command did not end in {seconds} s"),
            ))
        })
}

/// All of some output up to the bound; what comes after it is read and forgotten, so that the command does not wait.
async fn bounded(reader: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let Some(mut reader) = reader else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    let limit = u64::try_from(OUTPUT_BYTES_MAX).unwrap_or(u64::MAX);
    (&mut reader).take(limit).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_is_bounded_and_the_rest_is_read() {
        let long = vec![b'x'; OUTPUT_BYTES_MAX + 10];
        let kept = bounded(Some(long.as_slice())).await.unwrap();
        assert_eq!(kept.len(), OUTPUT_BYTES_MAX);
        assert_eq!(bounded(Some(b"a".as_slice())).await.unwrap(), b"a");
    }
}
