"Everything is in settings.ini: edit there, not here."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def settings():
    "The settings of the package and of nbdev"
    ini = ConfigParser(delimiters=['='])
    ini.read(HERE / 'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


def extras(cfg):
    "The line `gpu_cuda12_requirements = ...` is the extra `gpu-cuda12`"
    suffix = '_requirements'
    return {key[: -len(suffix)].replace('_', '-'): value.split() for key, value in cfg.items()
            if key.endswith(suffix)}


def absolute(text, cfg):
    "README.md for a package index: links and pictures of the repository are addresses at this version's tag"
    def prose(part):
        # pictures first, as a picture may stand in a link
        for link, kind in ((r'(!\[[^\]]*\])', 'raw'), (r'(\])', 'blob')):
            part = re.sub(link + r'\((?![a-z]+:|#)([^)\s]+)\)',
                          rf"\1({cfg['git_url']}/{kind}/v{cfg['version']}/\2)", part)
        return part
    return '```'.join(part if i % 2 else prose(part) for i, part in enumerate(text.split('```')))


def main(cfg):
    "What pip and build call"
    pythons = [f'Programming Language :: Python :: 3.{minor}'
               for minor in range(int(cfg['min_python'].split('.')[1]), 15)]
    site, issues = cfg['doc_host'] + cfg['doc_baseurl'], cfg['git_url'] + '/issues'
    setup(
        name=cfg['lib_name'],
        version=cfg['version'],
        description=cfg['description'],
        long_description=absolute((HERE / 'README.md').read_text(encoding='utf-8'), cfg),
        long_description_content_type='text/markdown',
        keywords=cfg['keywords'].split(),
        author=cfg['author'],
        author_email=cfg['author_email'],
        url=cfg['git_url'],
        project_urls={'Documentation': site, 'Issues': issues,
                      'Changes': f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md"},
        license_expression=cfg['license'].upper(),
        license_files=['LICENSE'],
        packages=find_packages(include=[cfg['lib_path'], cfg['lib_path'] + '.*']),
        package_data={cfg['lib_path']: ['py.typed', 'data/*']},
        python_requires=f">={cfg['min_python']}",
        install_requires=cfg['requirements'].split(),
        extras_require=extras(cfg),
        classifiers=['Development Status :: 4 - Beta', 'Intended Audience :: ' + cfg['audience'],
                     'Typing :: Typed',
                     'Natural Language :: ' + cfg['language'], 'Topic :: Scientific/Engineering', *pythons],
        entry_points={'nbdev': [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
        zip_safe=False,
    )


if __name__ == '__main__':
    main(settings())
