use super::*;
use crate::store::conformance;

#[tokio::test]
async fn its_library_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check_library(async || {
        number += 1;
        let file = folder.path().join(format!("{number}.db"));
        SqliteStore::open(&SqliteConfig::new(file)).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn it_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    conformance::check(async || {
        number += 1;
        let file = folder.path().join(format!("{number}.db"));
        SqliteStore::open(&SqliteConfig::new(file)).await.unwrap()
    })
    .await;
}

mod model;
