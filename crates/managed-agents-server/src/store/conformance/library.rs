//! Cases of skills.

use bytes::Bytes;
use jiff::Timestamp;
use mcp_tunnel_auth::{SkillId, SkillVersionId};

use super::scene::{ABROAD, HOME, missing, ok, refused, workspace};
use crate::store::{Change, LibraryStore, Listing, NewSkillVersion, Refusal, SkillRecord};

pub(super) struct Shelf<'a> {
    store: &'a dyn LibraryStore,
    now_ms: i64,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(store: &'a dyn LibraryStore) -> Self {
        Self {
            store,
            now_ms: 1_790_000_000_000,
        }
    }

    fn tick(&mut self) -> u64 {
        self.now_ms += 1;
        u64::try_from(self.now_ms).unwrap_or(0)
    }

    fn change_in(&mut self, workspace: &str) -> Change {
        let id = self.tick();
        let at = Timestamp::from_millisecond(self.now_ms).unwrap_or(Timestamp::MAX);
        let workspace = super::scene::workspace(workspace);
        Change::new(format!("audit_{id:020}"), workspace, "tester", at)
    }

    fn version(&mut self, name: &str, archive: &'static str) -> NewSkillVersion {
        let id = SkillVersionId::new(self.tick(), &[0; 10]);
        let archive = Bytes::from_static(archive.as_bytes());
        NewSkillVersion::new(id, name, format!("about {name}"), archive)
    }

    async fn skill(&mut self, name: &str) -> SkillRecord {
        let first = self.version(name, "one");
        let id = SkillId::new(self.tick(), &[0; 10]);
        let change = self.change_in(HOME);
        let display = format!("Skill {name}");
        ok(self
            .store
            .create_skill(&change, id, display, first, 10)
            .await)
    }
}

pub(super) async fn a_skill_is_its_newest_version(shelf: &mut Shelf<'_>) {
    let made = shelf.skill("a").await;
    assert_eq!(
        (made.name.as_str(), made.display_name.as_str()),
        ("a", "Skill a")
    );
    let store = shelf.store;
    let new = shelf.version("a", "two");
    let change = shelf.change_in(HOME);
    let second = ok(store
        .add_skill_version(&change, made.id, new.clone(), 10)
        .await);
    assert_eq!((second.id, second.skill), (new.id, made.id));
    let home = workspace(HOME);
    let now = ok(store.skill(&home, made.id).await);
    assert_eq!((now.latest, now.updated_at), (second.id, change.at));
    assert_eq!(ok(store.skill_version(&home, made.id, None).await), second);
    let first = ok(store.skill_version(&home, made.id, Some(made.latest)).await);
    assert_eq!(first.description, "about a");
    for (version, content) in [(made.latest, "one"), (second.id, "two")] {
        let archive = ok(store.skill_archive(&home, made.id, version).await);
        assert_eq!(archive, content.as_bytes());
    }
    let page = ok(store
        .skill_versions(&home, made.id, &Listing::newest(1))
        .await);
    assert_eq!((&page.rows[..], page.more), (&[second.clone()][..], true));
    let mut rest = Listing::newest(1);
    rest.before = Some(second.id.to_string());
    let page = ok(store.skill_versions(&home, made.id, &rest).await);
    assert_eq!((&page.rows[..], page.more), (&[first][..], false));
}

pub(super) async fn a_version_keeps_its_skills_name(shelf: &mut Shelf<'_>) {
    let made = shelf.skill("a").await;
    let other = shelf.version("b", "two");
    let change = shelf.change_in(HOME);
    let store = shelf.store;
    let failed = store.add_skill_version(&change, made.id, other, 10).await;
    refused(failed, &Refusal::OtherSkill);
    let more = shelf.version("a", "two");
    let failed = store.add_skill_version(&change, made.id, more, 1).await;
    let what = "versions of the skill";
    refused(failed, &Refusal::TooMany { what, most: 1 });
}

pub(super) async fn what_is_deleted_is_gone(shelf: &mut Shelf<'_>) {
    let made = shelf.skill("a").await;
    let kept = shelf.skill("b").await;
    let new = shelf.version("a", "two");
    let store = shelf.store;
    let change = shelf.change_in(HOME);
    let second = ok(store.add_skill_version(&change, made.id, new, 10).await);
    let change = shelf.change_in(HOME);
    ok(store
        .delete_skill_version(&change, made.id, second.id)
        .await);
    let home = workspace(HOME);
    assert_eq!(ok(store.skill(&home, made.id).await), made);
    missing(store.skill_archive(&home, made.id, second.id).await);
    let change = shelf.change_in(HOME);
    let failed = store
        .delete_skill_version(&change, made.id, made.latest)
        .await;
    refused(failed, &Refusal::LastVersion);
    ok(store.delete_skill(&change, made.id).await);
    missing(store.skill(&home, made.id).await);
    missing(store.skill_archive(&home, made.id, made.latest).await);
    let listed = ok(store.skills(&home, &Listing::newest(10)).await);
    assert_eq!(listed.rows, [kept]);
}

pub(super) async fn a_foreign_skill_is_missing(shelf: &mut Shelf<'_>) {
    let made = shelf.skill("a").await;
    let other = shelf.skill("b").await;
    let store = shelf.store;
    let abroad = workspace(ABROAD);
    missing(store.skill(&abroad, made.id).await);
    missing(store.skill_version(&abroad, made.id, None).await);
    missing(store.skill_archive(&abroad, made.id, made.latest).await);
    missing(
        store
            .skill_versions(&abroad, made.id, &Listing::newest(1))
            .await,
    );
    let new = shelf.version("a", "two");
    let change = shelf.change_in(ABROAD);
    missing(store.add_skill_version(&change, made.id, new, 10).await);
    missing(store.delete_skill(&change, made.id).await);
    missing(
        store
            .delete_skill_version(&change, made.id, made.latest)
            .await,
    );
    let listed = ok(store.skills(&abroad, &Listing::newest(1)).await);
    assert!(listed.rows.is_empty());
    // A version of one skill is none of another.
    let home = workspace(HOME);
    let found = store.skill_version(&home, other.id, Some(made.latest));
    missing(found.await);
    missing(store.skill_archive(&home, other.id, made.latest).await);
}
