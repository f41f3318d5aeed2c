//! Bootstrap providers: they turn a machine into a node by writing the data that its first boot runs.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use crate::answer::{Condition, Endpoint, Failure, each};
use crate::bindings::base::capstan::plugin::{material as wit_material, types};
use crate::bindings::bootstrap::exports::capstan::plugin::bootstrap as wit;
use crate::context::{Context, Extra, SecretHandle, read_extra, write_extra};
use crate::export::{Exported, input_traits};
use crate::kinds::{Cluster, Machine};
use crate::manifest::Plugin;
use crate::material::{Material, Requirement};
use crate::object::Object;

/// A bootstrap provider. Both functions are pure. The host owns the init lock, tokens, the data Secret and the contract.
pub trait Bootstrap: Plugin {
    /// The provider's own fields in the `spec` of its config kind.
    type Spec: DeserializeOwned + Clone + Debug;
    /// The provider's own fields in the `status` of its config kind; [`NoStatus`](crate::NoStatus) when it has none.
    type Status: DeserializeOwned + Clone + Debug + Default;

    /// What the host must have ready before `render`.
    ///
    /// # Errors
    /// What the host shows in the object's condition, and when it tries again.
    fn requirements(input: BootstrapInput<Self>) -> Result<Vec<Requirement>, Failure>;

    /// The data.
    ///
    /// # Errors
    /// As for [`requirements`](Self::requirements).
    fn render(input: BootstrapInput<Self>, material: Material) -> Result<BootstrapAnswer, Failure>;
}

/// What the machine will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first control-plane machine.
    Init,
    /// A further control-plane machine.
    JoinControlPlane,
    /// A worker.
    JoinWorker,
}

impl Role {
    pub(crate) fn read(role: types::Role) -> Self {
        match role {
            types::Role::Init => Self::Init,
            types::Role::JoinControlPlane => Self::JoinControlPlane,
            types::Role::JoinWorker => Self::JoinWorker,
        }
    }
}

/// Input of both functions.
pub struct BootstrapInput<P: Bootstrap + ?Sized> {
    /// The same for every call.
    pub context: Context,
    /// The Cluster.
    pub cluster: Cluster,
    /// The Machine. Of a MachinePool, whose machines share their data, one as the pool's template describes it, under the pool's name.
    pub machine: Machine,
    /// The bootstrap config object.
    pub config: Object<P::Spec, P::Status>,
    /// What the machine will be.
    pub role: Role,
    /// The cluster's control plane endpoint, when it is known.
    pub control_plane_endpoint: Option<Endpoint>,
    /// With a leading v; empty when the Machine has none.
    pub kubernetes_version: String,
    /// With a leading v; empty when the cluster has no versioned control plane.
    pub control_plane_version: String,
    /// Room for growth.
    pub extra: Extra,
}

input_traits!(BootstrapInput<Bootstrap> { context, cluster, machine, config, role, control_plane_endpoint, kubernetes_version, control_plane_version, extra });

/// Where a machine may tell, once, that it did not become a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureReport {
    /// `POST` here with `?phase=...&exitCode=...`; the body is the end of the machine's log, at most 4 KiB.
    pub url: String,
    /// Who vouches for the server, PEM.
    pub certificate_authority: String,
    /// Goes into the header `Authorization`, after `Bearer `.
    pub token: SecretHandle,
}

impl<P: Bootstrap + ?Sized> BootstrapInput<P> {
    /// Where the machine may report; `None` when the operator or the object does not want it to.
    #[must_use]
    pub fn failure_report(&self) -> Option<FailureReport> {
        let told = self.extra.get("bootstrapReport")?;
        let text = |field: &str| Some(told.get(field)?.as_str()?.to_owned());
        Some(FailureReport {
            url: text("url")?,
            certificate_authority: text("certificateAuthority")?,
            token: SecretHandle(told.get("token")?.as_u64()?),
        })
    }
}

/// How secret bytes are put into the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretEncoding {
    /// As they are.
    Plain,
    /// Every line is preceded by so many spaces.
    Indent(u32),
    /// Standard alphabet, padded.
    Base64,
    /// As the inside of a JSON string, without the line ends at its end.
    JsonString,
    /// As a part of a URL: every byte that is not unreserved becomes `%` and two digits.
    Percent,
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Public text.
    Text(String),
    /// Secret bytes that the host puts in.
    Secret(SecretHandle, SecretEncoding),
}

/// Answer of `render`.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapAnswer {
    /// Joined by the host, in order; at most 1 MiB together.
    pub parts: Vec<Part>,
    /// `cloud-config` or `ignition`.
    pub format: String,
    /// The provider's own conditions.
    pub conditions: Vec<Condition>,
    /// Room for growth.
    pub extra: Extra,
}

impl BootstrapAnswer {
    /// Data in this format, still empty.
    pub fn new(format: impl Into<String>) -> Self {
        Self {
            parts: Vec::new(),
            format: format.into(),
            conditions: Vec::new(),
            extra: Extra::new(),
        }
    }

    /// A cloud-config, still empty: its first line is the author's to write.
    #[must_use]
    pub fn cloud_config() -> Self {
        Self::new("cloud-config")
    }

    /// Adds text.
    #[must_use]
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        self.push_text(text.as_ref());
        self
    }

    /// Adds secret bytes.
    #[must_use]
    pub fn secret(mut self, secret: SecretHandle, encoding: SecretEncoding) -> Self {
        self.push_secret(secret, encoding);
        self
    }

    /// Adds a condition of the provider's own.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Adds text in place; joined with the text before it.
    pub fn push_text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// Adds secret bytes in place.
    pub fn push_secret(&mut self, secret: SecretHandle, encoding: SecretEncoding) {
        self.parts.push(Part::Secret(secret, encoding));
    }

    /// The whole data for people and tests, with `secret(7)` where secret bytes go.
    #[must_use]
    pub fn preview(&self) -> String {
        let shown = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Secret(handle, _) => handle.to_string(),
        };
        self.parts.iter().map(shown).collect()
    }
}

impl<P: Bootstrap> BootstrapInput<P> {
    fn read(input: wit::BootstrapInput) -> Result<Self, Failure> {
        Ok(Self {
            context: Context::read(input.context)?,
            cluster: Object::read_foreign(&input.cluster, "cluster")?,
            machine: Object::read_foreign(&input.machine, "machine")?,
            config: Object::read(&input.config, "config")?,
            role: Role::read(input.role),
            control_plane_endpoint: input.control_plane_endpoint.map(Into::into),
            kubernetes_version: input.kubernetes_version,
            control_plane_version: input.control_plane_version,
            extra: read_extra(input.extra)?,
        })
    }
}

impl From<Part> for wit::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Text(text) => Self::Text(text),
            Part::Secret(SecretHandle(secret), encoding) => Self::Secret(wit::SecretPart {
                secret,
                encoding: match encoding {
                    SecretEncoding::Plain => wit::SecretEncoding::Plain,
                    SecretEncoding::Indent(spaces) => wit::SecretEncoding::Indent(spaces),
                    SecretEncoding::Base64 => wit::SecretEncoding::Base64,
                    SecretEncoding::JsonString => wit::SecretEncoding::JsonString,
                    SecretEncoding::Percent => wit::SecretEncoding::Percent,
                },
            }),
        }
    }
}

impl From<BootstrapAnswer> for wit::BootstrapAnswer {
    fn from(answer: BootstrapAnswer) -> Self {
        Self {
            parts: each(answer.parts),
            format: answer.format,
            conditions: each(answer.conditions),
            extra: write_extra(answer.extra),
        }
    }
}

impl<T: Bootstrap> wit::Guest for Exported<T> {
    fn requirements(
        input: wit::BootstrapInput,
    ) -> Result<Vec<wit_material::Requirement>, types::Failure> {
        Ok(BootstrapInput::read(input)
            .and_then(T::requirements)
            .map(each)?)
    }

    fn render(
        input: wit::BootstrapInput,
        material: Vec<wit_material::Material>,
    ) -> Result<wit::BootstrapAnswer, types::Failure> {
        let render = |input| T::render(input, Material::read(material));
        Ok(BootstrapInput::read(input).and_then(render)?.into())
    }
}
