//! Skills: folders of instructions and scripts that a worker mounts for an agent.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "skill")]
pub struct Skill {
    /// `skill_…`, opaque.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// The id of its newest version.
    pub latest_version_id: String,
    /// Where it comes from.
    pub source: SkillSource,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// Where a skill comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillSource {
    /// `custom`, or one of the vendor's own kinds.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One version of a skill. Its content is an archive, at `…/content`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "skill_version")]
pub struct SkillVersion {
    /// Opaque; what the address of its content holds.
    pub id: String,
    /// The skill.
    pub skill_id: String,
    /// Its number or date, where the server has one beside the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The folder that it is mounted as.
    pub name: String,
    /// What it is good for.
    pub description: String,
    /// The single folder at the top of its archive, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}
