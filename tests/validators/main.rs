//! `just validators`: makes the programs that read bootstrap data, so that tests of bootstrap plugins check what is written with them.
#![expect(clippy::print_stdout, reason = "its output is its result")]

use anyhow::{Context as _, Result};
use capstan_local::progress::Progress;
use capstan_local::{images, toolchain};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let progress = Progress::new(|line| println!("{line}"));
    let built = toolchain::ensure_validators(&progress)
        .await
        .context("nothing reads bootstrap data")?;
    for program in built {
        println!("{}", program.display());
    }
    // That of the images of real machines, which not every computer can make.
    match images::ensure_cloud_init(&progress).await {
        Ok(()) => println!("cloud-init is that of the machines' images"),
        Err(error) => println!(
            "there is no cloud-init to check with: {:#}",
            anyhow::Error::from(error)
        ),
    }
    Ok(())
}
