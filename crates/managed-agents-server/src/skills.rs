//! Skills: uploaded in versions, fetched by workers.
//!
//! Two shapes of the same objects are on the wire: the present one, and that of requests
//! which name the beta `skills-2025-10-02`, as the SDKs before 1.0 do.

mod frontmatter;
mod upload;
mod zip;

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::request::Parts;
use jiff::Timestamp;
use managed_agents_api::serve::{ApiError, PageParams, Permission};
use managed_agents_api::{self as api, Deleted, Page, SkillSource, SkillVersion, headers};
use managed_agents_service::{listing, page};
use mcp_tunnel_auth::{SkillId, SkillVersionId};
use serde::Serialize;

use crate::environment::{entropy, unix_ms};
use crate::failure::answer;
use crate::hooks::{Caller, Id, Route, Takes, not_found};
use crate::shared::Shared;
use crate::store::{NewSkillVersion, SkillRecord, SkillVersionRecord};

use upload::Upload;

pub(crate) use upload::UPLOADS_MOST;

pub(crate) fn routes() -> Vec<Route> {
    let read = Takes::api(Permission::SkillsRead).or_key().or_item();
    let manage = Takes::api(Permission::SkillsManage);
    vec![
        Route::post("/v1/skills", manage, create),
        Route::get("/v1/skills", Takes::api(Permission::SkillsRead), list),
        Route::get("/v1/skills/{skill}", read, retrieve),
        Route::delete("/v1/skills/{skill}", manage, delete),
        Route::post("/v1/skills/{skill}/versions", manage, add_version),
        Route::get("/v1/skills/{skill}/versions", read, versions),
        Route::get("/v1/skills/{skill}/versions/{version}", read, version),
        Route::delete(
            "/v1/skills/{skill}/versions/{version}",
            manage,
            delete_version,
        ),
        Route::get(
            "/v1/skills/{skill}/versions/{version}/content",
            read,
            content,
        ),
    ]
}

async fn create(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    shape: Shape,
    request: Request,
) -> Result<Json<Skill>, ApiError> {
    let upload = Upload::read(&shared.uploads, request).await?;
    let change = caller.change(None)?;
    let display_name = upload.display_name()?;
    let id = SkillId::new(unix_ms(change.at), &entropy());
    let first = new_version(change.at, upload);
    let most = shared.config.skills_most;
    let record = shared
        .library
        .create_skill(&change, id, display_name, first, most)
        .await
        .map_err(answer::<SkillId>)?;
    Ok(Json(shape.skill(record)))
}

async fn list(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    shape: Shape,
    params: PageParams,
) -> Result<Json<Page<Skill>>, ApiError> {
    let listing = listing::<SkillId>(params)?;
    let listed = shared
        .library
        .skills(&caller.workspace, &listing)
        .await
        .map_err(answer::<SkillId>)?;
    Ok(Json(page(
        listed,
        |record| record.id,
        |record| shape.skill(record),
    )))
}

async fn retrieve(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    shape: Shape,
    Id(id): Id<SkillId>,
) -> Result<Json<Skill>, ApiError> {
    let found = shared.library.skill(&caller.workspace, id).await;
    Ok(Json(shape.skill(found.map_err(answer::<SkillId>)?)))
}

async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Id(id): Id<SkillId>,
) -> Result<Json<Deleted>, ApiError> {
    let change = caller.change(None)?;
    shared
        .library
        .delete_skill(&change, id)
        .await
        .map_err(answer::<SkillId>)?;
    Ok(Json(Deleted::new(id.to_string(), "skill_deleted")))
}

async fn add_version(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    shape: Shape,
    Id(skill): Id<SkillId>,
    request: Request,
) -> Result<Json<SkillVersion>, ApiError> {
    // A foreign skill is missing before anything is read or judged.
    let found = shared.library.skill(&caller.workspace, skill).await;
    found.map_err(answer::<SkillId>)?;
    let upload = Upload::read(&shared.uploads, request).await?;
    let change = caller.change(None)?;
    let new = new_version(change.at, upload);
    let most = shared.config.skill_versions_most;
    let record = shared
        .library
        .add_skill_version(&change, skill, new, most)
        .await
        .map_err(answer::<SkillId>)?;
    Ok(Json(shape.version(record)))
}

async fn versions(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    shape: Shape,
    Id(skill): Id<SkillId>,
    params: PageParams,
) -> Result<Json<Page<SkillVersion>>, ApiError> {
    let listing = listing::<SkillVersionId>(params)?;
    let listed = shared
        .library
        .skill_versions(&caller.workspace, skill, &listing)
        .await
        .map_err(answer::<SkillId>)?;
    Ok(Json(page(
        listed,
        |record| record.id,
        |record| shape.version(record),
    )))
}

async fn version(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    shape: Shape,
    which: Which,
) -> Result<Json<SkillVersion>, ApiError> {
    let record = which.find(&shared, &caller).await?;
    Ok(Json(shape.version(record)))
}

async fn delete_version(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    which: Which,
) -> Result<Json<Deleted>, ApiError> {
    let change = caller.change(None)?;
    let record = which.find(&shared, &caller).await?;
    let (skill, version) = (record.skill, record.id);
    shared
        .library
        .delete_skill_version(&change, skill, version)
        .await
        .map_err(answer::<SkillVersionId>)?;
    Ok(Json(Deleted::new(
        version.to_string(),
        "skill_version_deleted",
    )))
}

async fn content(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    which: Which,
) -> Result<Response, ApiError> {
    let record = which.find(&shared, &caller).await?;
    let archive = shared
        .library
        .skill_archive(&caller.workspace, record.skill, record.id)
        .await
        .map_err(answer::<SkillVersionId>)?;
    let headers = [
        (CONTENT_TYPE, "application/x-tar".to_owned()),
        // The name is letters, digits and hyphens.
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}.tar\"", record.name),
        ),
    ];
    Ok((headers, archive).into_response())
}

fn new_version(at: Timestamp, upload: Upload) -> NewSkillVersion {
    let id = SkillVersionId::new(unix_ms(at), &entropy());
    NewSkillVersion::new(id, upload.name, upload.description, upload.archive)
}

/// A version in the path, where `latest` is the newest one.
struct Which {
    skill: SkillId,
    version: Option<SkillVersionId>,
}

impl Which {
    async fn find(&self, shared: &Shared, caller: &Caller) -> Result<SkillVersionRecord, ApiError> {
        shared
            .library
            .skill_version(&caller.workspace, self.skill, self.version)
            .await
            .map_err(answer::<SkillVersionId>)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Which {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let missing = || not_found::<SkillVersionId>();
        let Path((skill, version)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|_| missing())?;
        Ok(Self {
            skill: skill.parse().map_err(|_| missing())?,
            version: match version.as_str() {
                "latest" => None,
                text => Some(
                    text.parse()
                        .ok()
                        .or_else(|| by_number(text))
                        .ok_or_else(missing)?,
                ),
            },
        })
    }
}

/// Before 1.0 a version was a number, larger for a later one; ids are such numbers inside.
fn number(id: SkillVersionId) -> String {
    u128::from_be_bytes(id.to_bytes()).to_string()
}

fn by_number(text: &str) -> Option<SkillVersionId> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u128 = text.parse().ok().filter(|_| digits)?;
    Some(SkillVersionId::from_bytes(number.to_be_bytes()))
}

/// How objects look on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Present,
    /// What the beta `skills-2025-10-02` asks for.
    Dated,
}

impl<S: Send + Sync> FromRequestParts<S> for Shape {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut betas = parts
            .headers
            .get_all(headers::BETA)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        Ok(if betas.any(|beta| beta.trim() == DATED) {
            Self::Dated
        } else {
            Self::Present
        })
    }
}

impl Shape {
    fn skill(self, record: SkillRecord) -> Skill {
        let present = api::Skill {
            id: record.id.to_string(),
            display_name: record.display_name,
            latest_version_id: record.latest.to_string(),
            source: SkillSource {
                kind: CUSTOM.to_owned(),
            },
            created_at: record.created_at,
            updated_at: record.updated_at,
        };
        match self {
            Self::Present => Skill::Present(present),
            Self::Dated => Skill::Dated {
                id: present.id,
                kind: "skill",
                display_title: present.display_name,
                latest_version: number(record.latest),
                source: CUSTOM,
                created_at: present.created_at,
                updated_at: present.updated_at,
            },
        }
    }

    fn version(self, record: SkillVersionRecord) -> SkillVersion {
        let dated = self == Self::Dated;
        SkillVersion {
            version: dated.then(|| number(record.id)),
            directory: dated.then(|| record.name.clone()),
            id: record.id.to_string(),
            skill_id: record.skill.to_string(),
            name: record.name,
            description: record.description,
            created_at: record.created_at,
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Skill {
    Present(api::Skill),
    Dated {
        id: String,
        #[serde(rename = "type")]
        kind: &'static str,
        display_title: String,
        latest_version: String,
        source: &'static str,
        created_at: Timestamp,
        updated_at: Timestamp,
    },
}

const CUSTOM: &str = "custom";

const DATED: &str = "skills-2025-10-02";
