//! Routes of the vendor's API that are not served yet: 404 with a body that says so, so
//! that nobody looks for a mistake of their own.

use axum::Router;
use axum::routing::any;
use managed_agents_api::serve::ApiError;

/// Adds an answer for each of [`ABSENT`] and everything below it.
pub(crate) fn mount<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    ABSENT.into_iter().fold(router, |router, (path, what)| {
        let answer = move || async move { not_served(path, what) };
        router
            .route(path, any(answer))
            .route(&format!("{path}/{{*rest}}"), any(answer))
    })
}

fn not_served(path: &str, what: &str) -> ApiError {
    ApiError::not_found(format!("{what} are not served here yet ({path})")).with_code("not_served")
}

/// Where, and what is there at the vendor's.
pub(crate) const ABSENT: [(&str, &str); 11] = [
    ("/v1/memory_stores", "memory stores"),
    ("/v1/vaults", "vaults"),
    ("/v1/files", "files"),
    ("/v1/organizations/webhooks", "webhooks"),
    ("/v1/webhooks", "webhooks"),
    ("/v1/deployments", "deployments"),
    ("/v1/deployment_runs", "deployments"),
    ("/v1/dreams", "dreams"),
    ("/v1/user_profiles", "user profiles"),
    ("/v1/messages", "model requests"),
    ("/v1/models", "models"),
];
