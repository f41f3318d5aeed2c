//! The little of a store's XML that is needed: values by the name of their element, and the list of parts that makes an object.

/// The values of all elements of this name, which have no elements in them.
pub(super) fn values(document: &[u8], element: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(document);
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let mut values = Vec::new();
    let mut rest = &*text;
    while let Some((_, after)) = rest.split_once(&begin) {
        let Some((value, after)) = after.split_once(&end) else {
            break;
        };
        values.push(plain(value));
        rest = after;
    }
    values
}

/// What an error document says: its code and its message.
pub(super) fn failure(document: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(document);
    if !text.contains("<Error>") {
        return None;
    }
    let of = |element| values(document, element).into_iter().next();
    let code = of("Code").unwrap_or_else(|| "an error without a code".to_owned());
    Some(match of("Message") {
        Some(message) => format!("{code}: {message}"),
        None => code,
    })
}

/// The document that makes an object of parts.
pub(super) fn complete(tags: &[String]) -> String {
    let mut document = String::from("<CompleteMultipartUpload>");
    for (number, tag) in (1_u32..).zip(tags) {
        document.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
            escaped(tag)
        ));
    }
    document.push_str("</CompleteMultipartUpload>");
    document
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn plain(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_uploads_are_read_out_of_lists() {
        let list = b"<?xml version=\"1.0\"?><ListBucketResult><NextKeyMarker>n</NextKeyMarker>\
            <Contents><Key>a/1.db</Key><Size>3</Size></Contents><Contents><Key>a&amp;b</Key></Contents></ListBucketResult>";
        assert_eq!(values(list, "Key"), ["a/1.db", "a&b"]);
        assert!(values(list, "UploadId").is_empty());
        assert!(values(b"<Key>cut off", "Key").is_empty());
    }

    #[test]
    fn an_error_is_its_code_and_its_words() {
        let error = b"<Error><Code>AccessDenied</Code><Message>No &lt;way&gt;</Message></Error>";
        assert_eq!(failure(error).as_deref(), Some("AccessDenied: No <way>"));
        assert_eq!(failure(b"<Result><Code>x</Code></Result>"), None);
        assert_eq!(failure(b""), None);
    }

    #[test]
    fn parts_are_counted_from_one() {
        let document = complete(&["\"a\"".to_owned(), "b".to_owned()]);
        assert!(document.contains(
            "<Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag></Part><Part><PartNumber>2</PartNumber><ETag>b</ETag></Part>"
        ));
    }
}
