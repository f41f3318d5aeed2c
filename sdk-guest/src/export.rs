//! The export macros, and the type on which the generated glue is implemented.

use std::marker::PhantomData;

/// Carries the author's type to the generated glue; never made.
pub struct Exported<T>(PhantomData<T>);

/// `Clone` and `Debug` for an input, without asking them of the author's plugin type as a derive would.
macro_rules! input_traits {
    ($input:ident<$bound:path> { $($field:ident),+ }) => {
        impl<P: $bound + ?Sized> Clone for $input<P> {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone()),+ }
            }
        }

        impl<P: $bound + ?Sized> std::fmt::Debug for $input<P> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($input))
                    $(.field(stringify!($field), &self.$field))+
                    .finish()
            }
        }
    };
}
pub(crate) use input_traits;

/// Exports an [`Infrastructure`](crate::infrastructure::Infrastructure) provider. Expands to nothing off wasm.
#[macro_export]
macro_rules! export_infrastructure {
    ($plugin:ty) => {
        $crate::__export!($plugin, infrastructure);
    };
}

/// Exports a [`Bootstrap`](crate::bootstrap::Bootstrap) provider. Expands to nothing off wasm.
#[macro_export]
macro_rules! export_bootstrap {
    ($plugin:ty) => {
        $crate::__export!($plugin, bootstrap);
    };
}

/// Exports a [`ControlPlane`](crate::control_plane::ControlPlane) provider. Expands to nothing off wasm.
#[macro_export]
macro_rules! export_control_plane {
    ($plugin:ty) => {
        $crate::__export!($plugin, control_plane);
    };
}

/// Exports a [`PreDeleteHook`](crate::pre_delete_hook::PreDeleteHook). Expands to nothing off wasm.
#[macro_export]
macro_rules! export_pre_delete_hook {
    ($plugin:ty) => {
        $crate::__export!($plugin, pre_delete_hook);
    };
}

/// Exports an [`UpgradeStrategy`](crate::upgrade_strategy::UpgradeStrategy). Expands to nothing off wasm.
#[macro_export]
macro_rules! export_upgrade_strategy {
    ($plugin:ty) => {
        $crate::__export!($plugin, upgrade_strategy);
    };
}

/// Exports several kinds from one component: `export_plugin!(T: infrastructure, pre_delete_hook)`. Expands to nothing off wasm.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty: $($interface:ident),+ $(,)?) => {
        $crate::__export!($plugin, $($interface),+);
    };
}

/// The manifest and the interfaces. Linking component exports natively fails (their names contain `:` and `/`), hence the `cfg`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($plugin:ty, $($interface:ident),+) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::__private::Exported<$plugin>;
            $crate::__private::manifest::export!(Exported with_types_in $crate::__private::manifest);
            $($crate::__private::$interface::export!(
                Exported with_types_in $crate::__private::$interface
            );)+
        };
    };
}
