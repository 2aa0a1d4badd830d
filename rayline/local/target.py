"""The local session as something that rayline.verify can look into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import psutil

from rayline.local import translate
from rayline.local.session import Session, environ
from rayline.verify import HttpAnswer, ProcessFacts


class LocalTarget:
    """Implements rayline.verify.Target for one session on this machine."""

    def __init__(self, session: Session, declared: translate.Declared, translation: translate.Translation) -> None:
        self._session = session
        self._declared = declared
        self._translation = translation
        self._client = httpx.Client(timeout=30, trust_env=False)

    @property
    def declared_env(self) -> Mapping[str, str]:
        # After the translation: a port that had to move is no difference to complain about.
        return {name: value for name, value in self._translation.env.items() if name in self._declared.env}

    @property
    def model_ids(self) -> Sequence[str]:
        return [config["model_loading_config"]["model_id"] for config in self._declared.llm_configs()]

    @property
    def runs_on_gpu(self) -> bool:
        return False

    def dashboard(self, path: str) -> Any:
        answer = self._client.get(
            f"http://{translate.LOOPBACK}:{self._session.ports['dashboard']}{path}",
            headers={"Authorization": f"Bearer {self._translation.auth_token}"},
        )
        answer.raise_for_status()
        return answer.json()

    def endpoint(self, path: str, *, with_key: bool, method: str = "GET", body: Any = None) -> HttpAnswer:
        key = self._translation.api_key
        answer = self._client.request(
            method,
            f"http://{translate.LOOPBACK}:{self._session.ports['serve']}{path}",
            json=body,
            headers={"Authorization": f"Bearer {key}"} if key and with_key else {},
        )
        return HttpAnswer(answer.status_code, answer.text)

    def processes(self) -> Sequence[ProcessFacts]:
        found = []
        for process in self._session.processes():
            try:
                title = " ".join(process.cmdline()).strip()
                found.append(ProcessFacts(process.pid, title, environ(process.pid)))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def haproxy_configs(self) -> Mapping[str, str]:
        return {
            str(path): path.read_text()
            for path in self._session.folder.glob(f"{translate.HAPROXY_FOLDER}/*/haproxy.cfg")
        }

    def controller_log(self) -> str:
        return "\n".join(
            path.read_text(errors="replace") for path in self._session.log_folder.glob("serve/controller_*")
        )
