//! How commands print data.

use anyhow::Result;
use serde::Serialize;

use crate::out;

/// The form in which data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Output {
    /// A value in a form for machines, or else the text.
    pub(crate) fn show<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<String> {
        Ok(match self {
            Self::Json => serde_json::to_string_pretty(value)?,
            Self::Yaml => capstan_api::yaml::print(&serde_json::to_value(value)?),
            Self::Text => text(),
        })
    }

    /// Prints what [`Output::show`] makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        out::result(self.show(value, text)?.trim_end());
        Ok(())
    }
}
