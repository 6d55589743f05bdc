//! Configurations of environments, with every default filled in.

use managed_agents_api::serve::ApiError;
use managed_agents_api::{Cloud, EnvironmentConfig, RawJson};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::EnvironmentKind;

/// Kind and JSON text of a new environment's configuration. Nothing said is the vendor's
/// default: a cloud environment.
pub(super) fn new(
    config: Option<EnvironmentConfig>,
) -> Result<(EnvironmentKind, String), ApiError> {
    match config.unwrap_or_else(|| Cloud::default().into()) {
        EnvironmentConfig::SelfHosted(_) => {
            Ok((EnvironmentKind::SelfHosted, SELF_HOSTED.to_owned()))
        }
        EnvironmentConfig::Cloud(cloud) => {
            let config = CloudConfig::default().with(&cloud)?;
            Ok((EnvironmentKind::Cloud, text(&config)?))
        }
        _ => Err(unknown()),
    }
}

/// The JSON text of a configuration after a change, which cannot change its kind.
pub(super) fn changed(
    kind: EnvironmentKind,
    before: &str,
    to: EnvironmentConfig,
) -> Result<String, ApiError> {
    match (kind, to) {
        (EnvironmentKind::SelfHosted, EnvironmentConfig::SelfHosted(_)) => {
            Ok(SELF_HOSTED.to_owned())
        }
        (EnvironmentKind::Cloud, EnvironmentConfig::Cloud(cloud)) => {
            let before: CloudConfig =
                serde_json::from_str(before).map_err(|_| ApiError::internal())?;
            text(&before.with(&cloud)?)
        }
        (_, EnvironmentConfig::SelfHosted(_) | EnvironmentConfig::Cloud(_)) => {
            Err(ApiError::invalid(
                "config.type: an environment stays of the kind that it was made; create another one",
            )
            .with_code("invalid_config_type_change"))
        }
        _ => Err(unknown()),
    }
}

fn unknown() -> ApiError {
    ApiError::invalid("config.type: self_hosted or cloud")
}

/// A cloud environment's, as it is served. Nothing here runs one; it is kept for whoever
/// manages environments of both kinds with one program.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename = "cloud")]
struct CloudConfig {
    networking: Networking,
    packages: Packages,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Networking {
    #[default]
    Unrestricted,
    Limited {
        #[serde(default)]
        allowed_hosts: Vec<String>,
        #[serde(default)]
        allow_mcp_servers: bool,
        #[serde(default)]
        allow_package_managers: bool,
    },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Packages {
    apt: Vec<String>,
    cargo: Vec<String>,
    gem: Vec<String>,
    go: Vec<String>,
    npm: Vec<String>,
    pip: Vec<String>,
}

impl CloudConfig {
    fn with(mut self, cloud: &Cloud) -> Result<Self, ApiError> {
        if let Some(networking) = &cloud.networking {
            self.networking = parsed("config.networking", networking)?;
        }
        if let Some(packages) = &cloud.packages {
            self.packages = parsed("config.packages", packages)?;
        }
        Ok(self)
    }
}

fn parsed<T: DeserializeOwned>(field: &str, json: &RawJson) -> Result<T, ApiError> {
    json.parse()
        .map_err(|error| ApiError::invalid(format!("{field}: {error}")))
}

fn text<T: Serialize>(config: &T) -> Result<String, ApiError> {
    serde_json::to_string(config).map_err(|_| ApiError::internal())
}

const SELF_HOSTED: &str = r#"{"type":"self_hosted"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> EnvironmentConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn defaults_are_filled_in_and_kept() {
        let (kind, text) = new(None).unwrap();
        assert_eq!(kind, EnvironmentKind::Cloud);
        assert_eq!(
            text,
            r#"{"type":"cloud","networking":{"type":"unrestricted"},"packages":{"apt":[],"cargo":[],"gem":[],"go":[],"npm":[],"pip":[]}}"#
        );
        let pip = config(r#"{"type":"cloud","packages":{"pip":["numpy"]}}"#);
        let text = changed(kind, &text, pip).unwrap();
        assert!(text.contains(r#""pip":["numpy"]"#));
        let limited = config(
            r#"{"type":"cloud","networking":{"type":"limited","allowed_hosts":["a.example"]}}"#,
        );
        let text = changed(kind, &text, limited).unwrap();
        assert!(text.contains(r#""pip":["numpy"]"#), "{text}");
        assert!(text.contains(r#""allow_mcp_servers":false"#), "{text}");
    }

    #[test]
    fn a_kind_is_for_ever() {
        let (kind, before) = new(Some(config(SELF_HOSTED))).unwrap();
        let refused = changed(kind, &before, config(r#"{"type":"cloud"}"#)).unwrap_err();
        assert!(refused.message().contains("stays of the kind"));
        assert!(new(Some(config(r#"{"type":"moon"}"#))).is_err());
        let wrong = config(r#"{"type":"cloud","networking":{"type":"limited","allowed_hosts":7}}"#);
        let refused = new(Some(wrong)).unwrap_err();
        assert!(refused.message().starts_with("config.networking: "));
    }
}
