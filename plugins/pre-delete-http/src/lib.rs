//! pre-delete-http.
