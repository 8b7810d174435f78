"""Who is told of ended jobs: which addresses this service may be asked to POST to (docs/decisions/0018-webhooks.md).

As with datasets by reference only the text is judged here; where a name leads is found out by whoever connects.
"""

from store.references import address_parts
from store.settings import Settings
from store.specification import Notify


def check_receiver(notify: Notify | None, settings: Settings) -> None:
    """Refuse what will not be told.

    Raises:
        InvalidError: what is wrong with the URL; `param` is "notify.url".
    """
    if notify is None:
        return
    if settings.ecif_private_receivers:
        address_parts(notify.url, ("https", "http"), "a notice is sent by", "notify.url")
    else:
        use = "without ECIF_PRIVATE_RECEIVERS a notice is sent by"
        address_parts(notify.url, ("https",), use, "notify.url")
