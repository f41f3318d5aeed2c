//! All that a provider author needs: a trait and an export macro per plugin kind.
