//! Bindings of `wit/v0.1`, one small world per exported interface, all sharing the types of `base`.
//!
//! Nothing of this is public: authors see the types of the other modules, and the export macros reach the glue through
//! [`crate::__private`].

#![allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    clippy::restriction,
    reason = "generated from wit/, which has the documentation"
)]

/// Capabilities (imports) and the types that all interfaces share.
pub mod base {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        inline: "
            package capstan:sdk-base;
            world base {
                include capstan:plugin/capabilities@0.1.0;
                import capstan:plugin/types@0.1.0;
                import capstan:plugin/material@0.1.0;
            }
        ",
        world: "capstan:sdk-base/base",
        generate_all,
        generate_unused_types: true,
    });
}

/// Generates one module with the exported side of one interface.
macro_rules! exported {
    ($(#[$doc:meta])* $module:ident, $inline:literal, $world:literal $(, $key:literal: $path:path)?) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                path: "../wit/v0.1",
                inline: $inline,
                world: $world,
                pub_export_macro: true,
                generate_unused_types: true,
                with: {
                    "capstan:plugin/types@0.1.0": crate::bindings::base::capstan::plugin::types,
                    $($key: $path,)?
                },
            });
        }
    };
}

exported!(
    /// `manifest`.
    manifest,
    "package capstan:sdk-manifest; world manifest-exports { export capstan:plugin/manifest@0.1.0; }",
    "capstan:sdk-manifest/manifest-exports"
);
exported!(
    /// `infrastructure`.
    infrastructure,
    "package capstan:sdk-infrastructure; world infrastructure-exports { export capstan:plugin/infrastructure@0.1.0; }",
    "capstan:sdk-infrastructure/infrastructure-exports"
);
exported!(
    /// `bootstrap`.
    bootstrap,
    "package capstan:sdk-bootstrap; world bootstrap-exports { export capstan:plugin/bootstrap@0.1.0; }",
    "capstan:sdk-bootstrap/bootstrap-exports",
    "capstan:plugin/material@0.1.0": crate::bindings::base::capstan::plugin::material
);
exported!(
    /// `control-plane`.
    control_plane,
    "package capstan:sdk-control-plane; world control-plane-exports { export capstan:plugin/control-plane@0.1.0; }",
    "capstan:sdk-control-plane/control-plane-exports",
    "capstan:plugin/material@0.1.0": crate::bindings::base::capstan::plugin::material
);
exported!(
    /// `pre-delete-hook`.
    pre_delete_hook,
    "package capstan:sdk-pre-delete-hook; world pre-delete-hook-exports { export capstan:plugin/pre-delete-hook@0.1.0; }",
    "capstan:sdk-pre-delete-hook/pre-delete-hook-exports"
);
exported!(
    /// `upgrade-strategy`.
    upgrade_strategy,
    "package capstan:sdk-upgrade-strategy; world upgrade-strategy-exports { export capstan:plugin/upgrade-strategy@0.1.0; }",
    "capstan:sdk-upgrade-strategy/upgrade-strategy-exports"
);
