//! A minimal infrastructure provider.
