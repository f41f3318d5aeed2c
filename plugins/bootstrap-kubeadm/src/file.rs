//! A file that a machine gets, whatever the format of its data.

use crate::yaml::{Node, Part, Writer};

/// What is in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    /// Text as it is.
    Text(String),
    /// A secret that the host fills in.
    Secret(u64),
    /// YAML documents.
    Documents(Vec<Node>),
}

impl Content {
    /// Documents as parts that begin in the first column.
    pub(crate) fn of_documents(documents: &[Node]) -> Vec<Part> {
        let mut writer = Writer::default();
        writer.documents(documents, 0);
        writer.into_parts()
    }
}

/// A file that a machine gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    /// Absolute path.
    pub(crate) path: String,
    /// `user:group` or `user`.
    pub(crate) owner: Option<String>,
    /// Octal digits.
    pub(crate) permissions: Option<String>,
    /// How the content is encoded: `base64`, `gzip`, `gzip+base64`.
    pub(crate) encoding: Option<String>,
    /// Added to what is there.
    pub(crate) append: bool,
    /// What is in it.
    pub(crate) content: Content,
}

impl File {
    /// A file of root's.
    pub(crate) fn of_root(path: impl Into<String>, permissions: &str, content: Content) -> File {
        File {
            path: path.into(),
            owner: Some("root:root".to_owned()),
            permissions: Some(permissions.to_owned()),
            encoding: None,
            append: false,
            content,
        }
    }
}
