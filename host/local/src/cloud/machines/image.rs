//! What a machine of a Kubernetes version is made of.

use std::path::PathBuf;

use crate::machine::layout::Runner;

/// The files of an image; nothing of it is written to.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Layers of the root file system, topmost first.
    pub(crate) lower: Vec<PathBuf>,
    /// A containerd directory: the template of a machine's.
    pub(crate) store: PathBuf,
}

/// Finds the image of a version for machines whose user data is run by this; otherwise says what to do.
pub(crate) type Find = fn(&str, Runner) -> Result<Files, String>;
