//! The guest's imports, each one line onto the capability core.

use std::time::Duration;

use capstan_core::call::SecretHandle;

use super::imports::{http, log, state};
use crate::capability::Capabilities;
use crate::capability::http::{BodyEncoding, BodyPart, HttpError, HttpRequest};
use crate::capability::log::Level;
use crate::capability::state::StateRefusal;
use crate::error::HostTrouble;

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
    }
}

impl log::Host for Capabilities {
    async fn enabled(&mut self, level: log::Level) -> wasmtime::Result<bool> {
        Ok(self.log_enabled(level_of(level)))
    }

    async fn emit(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.log_emit(level_of(level), &message, &fields);
        Ok(())
    }
}

impl state::Host for Capabilities {
    async fn get(&mut self) -> wasmtime::Result<Option<Vec<u8>>> {
        self.state_get().await.map_err(|why| {
            wasmtime::Error::new(HostTrouble(format!("the state cannot be read: {why}")))
        })
    }

    async fn put(&mut self, value: Vec<u8>) -> wasmtime::Result<Result<(), state::Error>> {
        Ok(self
            .state_put(value)
            .await
            .map_err(|refusal| match refusal {
                StateRefusal::Planned => state::Error::Planned,
                StateRefusal::Limit(why) => state::Error::Limit(why),
                StateRefusal::Failed(why) => state::Error::Failed(why),
            }))
    }
}

impl http::Host for Capabilities {
    async fn send(
        &mut self,
        request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, http::Error>> {
        let request = HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body.into_iter().map(part_of).collect(),
            credential: request.credential,
            timeout: (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms)),
        };
        // The future is large; the guest's stack is not where it belongs.
        let answer = Box::pin(self.http_send(request)).await;
        Ok(match answer {
            Ok(response) => Ok(http::Response {
                status: response.status,
                headers: response.headers,
                body: response.body,
            }),
            Err(HttpError::Denied(why)) => Err(http::Error::Denied(why)),
            Err(HttpError::Planned) => Err(http::Error::Planned),
            Err(HttpError::Invalid(why)) => Err(http::Error::Invalid(why)),
            Err(HttpError::Limit(why)) => Err(http::Error::Limit(why)),
            Err(HttpError::Failed(why)) => Err(http::Error::Failed(why)),
        })
    }
}

fn part_of(part: http::BodyPart) -> BodyPart {
    match part {
        http::BodyPart::Bytes(bytes) => BodyPart::Bytes(bytes),
        http::BodyPart::Secret(secret) => BodyPart::Secret(
            SecretHandle(secret.secret),
            match secret.encoding {
                http::SecretEncoding::Plain => BodyEncoding::Plain,
                http::SecretEncoding::Base64 => BodyEncoding::Base64,
                http::SecretEncoding::JsonString => BodyEncoding::JsonString,
            },
        ),
    }
}
