//! Each kind of bad component is refused with its own sentence, and the others load.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use capstan_core::call::manifest::PluginKind;

use super::probe::{engine, env, loaded, patched, tell, wasm, with_manifest};
use crate::limit::COMPILE_KILLS_MAX;
use crate::{
    Compiler, Engine, EngineError, EngineOptions, Limits, LoadCondition, LoadError,
    SignaturePolicy, compile_main,
};

async fn refused(source: Bytes) -> LoadError {
    let error = engine().load(source).await.unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn a_plugin_says_what_it_is() {
    let loaded = loaded().await;
    assert_eq!(loaded.kinds().len(), PluginKind::ALL.len());
    assert_eq!(loaded.manifest().name, "infrastructure-probe");
    assert_eq!(loaded.abi(), "0.1");
    let imports: Vec<_> = loaded.imports().iter().map(String::as_str).collect();
    assert_eq!(
        imports,
        [
            "event", "files", "http", "log", "secret", "state", "workload"
        ]
    );
    assert!(loaded.digest().starts_with("sha256:"));
    assert!(loaded.compiled_bytes() > loaded.source_bytes());
    assert!(loaded.engine().load(wasm()).await.unwrap().cached());
}

#[tokio::test]
async fn what_is_compiled_and_what_is_found_compiled_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = || EngineOptions {
        cache_dir: dir.path().to_owned(),
        ..engine().options.clone()
    };
    let first = Engine::new(options()).unwrap();
    let bad = first.load(Bytes::from_static(b"nothing")).await;
    assert!(bad.is_err());
    assert_eq!(first.stats().code, crate::CodeStats::default());
    let loaded = first.load(wasm()).await.unwrap();
    let code = first.stats().code;
    assert_eq!((code.hits, code.misses), (0, 1));
    assert_eq!((code.compiled.count(), code.failed.count()), (1, 0));
    assert!(code.compiled.sum >= loaded.compile_time(), "{code:?}");
    first.load(wasm()).await.unwrap();
    assert_eq!(first.stats().code.hits, 1);
    // Another host with the same directory finds it, too.
    let second = Engine::new(options()).unwrap();
    second.load(wasm()).await.unwrap();
    let code = second.stats().code;
    assert_eq!((code.hits, code.misses), (1, 0));
    assert_eq!(code.compiled.count(), 0);
}

#[tokio::test]
async fn packed_components_are_the_same_component() {
    let plain = loaded().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&wasm()).unwrap();
    let zstd = zstd::encode_all(wasm().as_ref(), 3).unwrap();
    for packed in [gzip.finish().unwrap(), zstd] {
        let unpacked = engine().load(Bytes::from(packed)).await.unwrap();
        assert_eq!(unpacked.digest(), plain.digest());
    }
}

#[tokio::test]
async fn a_truncated_component_is_named_as_such() {
    let wasm = wasm();
    for end in [9, 100, wasm.len() / 2, wasm.len() - 1] {
        let error = refused(wasm.slice(..end)).await;
        assert!(
            matches!(
                error,
                LoadError::Truncated { .. } | LoadError::Malformed { .. }
            ),
            "{end}: {error}"
        );
        assert_eq!(error.condition().0, LoadCondition::Verified);
    }
    assert!(matches!(
        refused(wasm.slice(..wasm.len() / 2)).await,
        LoadError::Truncated { .. }
    ));
}

#[tokio::test]
async fn native_code_of_our_own_compiler_is_refused_as_a_source() {
    let engine = engine();
    let native = engine
        .wasm
        .precompile_component(b"\0asm\x0d\0\x01\0")
        .unwrap();
    assert_eq!(
        engine.load(Bytes::from(native)).await.unwrap_err(),
        LoadError::Precompiled
    );
}

#[tokio::test]
async fn an_unknown_import_is_named() {
    let error = refused(patched("capstan:plugin/state@", "capstan:plugin/stale@")).await;
    assert_eq!(
        error,
        LoadError::UnknownImport {
            name: "capstan:plugin/stale@0.1.0".to_owned()
        }
    );
    assert_eq!(
        error.condition(),
        (LoadCondition::Compatible, "UnknownImport")
    );
}

#[tokio::test]
async fn another_version_of_the_interfaces_is_named() {
    let error = refused(patched(
        "capstan:plugin/state@0.1.0",
        "capstan:plugin/state@0.9.0",
    ))
    .await;
    assert!(matches!(error, LoadError::AbiUnsupported { found, .. } if found.ends_with("0.9.0")));
}

#[tokio::test]
async fn a_manifest_that_traps_is_named_and_others_load() {
    let engine = engine();
    let error = engine.load(with_manifest("traps")).await.unwrap_err();
    assert!(
        matches!(&error, LoadError::ManifestTrapped { why } if why.contains("no manifest today")),
        "{error}"
    );
    let good = engine.load(wasm()).await.unwrap();
    assert!(tell(&good, env(), "").await.is_ok());
}

#[tokio::test]
async fn a_manifest_that_makes_no_sense_is_refused_by_field() {
    for (mode, named) in [
        ("names", "name"),
        ("dupes", "kinds"),
        ("silent", "capabilities"),
        ("column", "kinds.columns.type"),
        ("suggest", "capabilities.suggestion"),
    ] {
        match refused(with_manifest(mode)).await {
            LoadError::ManifestInvalid { field, .. } => assert_eq!(field, named),
            other => panic!("{mode}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_manifest_reaches_nothing() {
    assert!(engine().load(with_manifest("reach")).await.is_ok());
}

/// The body of the compiling process, when this test's binary is run as one; nothing otherwise.
#[test]
fn compiles_when_told_to() {
    let output = std::env::args().next_back().unwrap_or_default();
    if output.ends_with(".tmp") {
        compile_main(Path::new(&output)).unwrap();
    }
}

fn in_child(
    dir: &Path,
    program: std::path::PathBuf,
) -> Result<std::sync::Arc<Engine>, EngineError> {
    let args = ["--exact", "tests::loading::compiles_when_told_to"].map(OsString::from);
    Engine::new(EngineOptions {
        cache_dir: dir.to_owned(),
        compiler: Compiler::Exe(program, args.to_vec()),
        ceilings: Limits::ceilings(),
        ceiling: crate::Ceiling::default(),
        sources: crate::SourceOptions::default(),
        guest_memory_bytes: 1 << 30,
        guest_threads: 1,
    })
}

#[tokio::test]
async fn components_are_compiled_in_a_child_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let first = in_child(dir.path(), exe.clone())
        .unwrap()
        .load(wasm())
        .await
        .unwrap();
    assert!(!first.cached());
    assert!(tell(&first, env(), "").await.is_ok());
    let second = in_child(dir.path(), exe)
        .unwrap()
        .load(wasm())
        .await
        .unwrap();
    assert!(second.cached());
    assert_eq!(
        second.compile_time().as_millis(),
        first.compile_time().as_millis()
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .collect();
    assert!(
        left.iter()
            .all(|path| path.extension().is_none_or(|e| e != "tmp")),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_compiler_that_fails_or_is_missing_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let failing = in_child(dir.path(), "/bin/false".into()).unwrap();
    assert!(matches!(
        failing.load(wasm()).await.unwrap_err(),
        LoadError::CompileFailed { .. }
    ));
    let missing = in_child(dir.path(), dir.path().join("none")).unwrap();
    let error = missing.load(wasm()).await.unwrap_err();
    assert!(matches!(error, LoadError::Host { .. }) && error.is_transient());
}

#[tokio::test]
async fn a_component_that_ends_hosts_while_it_is_compiled_is_left_alone_and_others_load() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let digest = loaded().await.digest().to_owned();
    let marks = || {
        let files = std::fs::read_dir(dir.path()).unwrap().flatten();
        let marks = files.map(|file| file.path());
        let is_mark =
            |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "compiling");
        marks.filter(is_mark).collect::<Vec<_>>()
    };
    for _ in 0..COMPILE_KILLS_MAX {
        // As a host does that is killed: the mark stays, and names a process that is not there any more.
        let killed = in_child(dir.path(), exe.clone()).unwrap();
        std::mem::forget(killed.cache.compiling(&digest).unwrap());
        let mark = marks().pop().unwrap();
        let at_work = in_child(dir.path(), exe.clone()).unwrap();
        drop(at_work.cache.compiling(&digest).unwrap());
        std::mem::forget(killed.cache.compiling(&digest).unwrap());
        let text = std::fs::read_to_string(&mark).unwrap();
        let count = text.split(' ').next().unwrap();
        crate::cache::write_private(&mark, format!("{count} 1 1").as_bytes()).unwrap();
    }
    let engine = in_child(dir.path(), exe.clone()).unwrap();
    let error = engine.load(wasm()).await.unwrap_err();
    assert!(
        matches!(&error, LoadError::CompileFailed { why } if why.contains("the compiler was killed")),
        "{error}"
    );
    assert!(!error.is_transient());
    let other = patched("capstan-manifest:plain..", "capstan-manifest:plain.,");
    assert!(engine.load(other).await.is_ok());
    // Who removes the mark has it tried again; one that is compiled leaves none.
    let left = marks();
    assert_eq!(left.len(), 1, "{left:?}");
    std::fs::remove_file(&left[0]).unwrap();
    let again = in_child(dir.path(), exe).unwrap();
    assert!(again.load(wasm()).await.is_ok());
    assert!(marks().is_empty());
}

#[tokio::test]
async fn damaged_native_code_is_never_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let engine = in_child(dir.path(), exe).unwrap();
    drop(engine.load(wasm()).await.unwrap());
    let code = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|path| path.extension().is_some_and(|e| e == "cwasm"))
        .unwrap();
    let mut bytes = std::fs::read(&code).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::remove_file(&code).unwrap();
    crate::cache::write_private(&code, &bytes).unwrap();
    let again = engine.load(wasm()).await.unwrap();
    assert!(!again.cached(), "it was compiled again");
}

#[test]
fn the_cache_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    drop(in_child(dir.path(), "/bin/false".into()).unwrap());
    let mode = std::fs::metadata(dir.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(
        in_child(&file, "/bin/false".into()),
        Err(EngineError::CacheDir { .. })
    ));
}

#[tokio::test]
async fn what_was_loaded_once_is_loaded_again_without_its_source_if_it_is_still_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let engine = in_child(dir.path(), exe.clone()).unwrap();
    let digest = engine.load(wasm()).await.unwrap().digest().to_owned();
    drop(engine);
    let engine = in_child(dir.path(), exe).unwrap();
    let kept = async |digest: &str, policy| engine.load_kept(digest, policy, Vec::new()).await;
    let loaded = kept(&digest, SignaturePolicy::Off).await.unwrap().unwrap();
    assert_eq!(loaded.digest(), digest);
    assert!(loaded.cached());
    // Nobody has signed it.
    assert!(kept(&digest, SignaturePolicy::Require).await.is_err());
    // What is no digest leads nowhere.
    for odd in ["sha256:../../etc/passwd", "sha256:00", ""] {
        assert!(kept(odd, SignaturePolicy::Off).await.unwrap().is_none());
    }
    let hex = digest.trim_start_matches("sha256:");
    let path = dir.path().join(format!("{hex}.wasm"));
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    crate::cache::write_private(&path, &bytes).unwrap();
    assert!(kept(&digest, SignaturePolicy::Off).await.is_err());
}
